"""A training sample as lines of text, each masked span in the colour of its sentinel."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.samples import Sample
from deltalm_ds.text.printable import printable
from deltalm_ds.text.tokenizer import Tokenizer

ColorChoice = Literal["auto", "always", "never"]

# Of the 256 colours of terminals: blue, orange, violet, ochre, pink, green, to be read on black and on white.
# Neighbours stay apart for colour-blind readers; the sentinels' numbers say the same as the colours.
_COLORS = (33, 166, 99, 136, 169, 29)
_BOLD, _FAINT, _RESET = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_SENTINEL = re.compile(r"<mask_(\d+)>")
_DOTTED_CIRCLE = "\u25cc"  # what Unicode lets a combining mark without a letter stand on


class Part(NamedTuple):
    """A stretch of a line."""

    text: str
    """Safe to print; with a space in front where a word or a special token begins."""
    is_special: bool
    """Whether it is a special token."""
    span: int | None
    """Number of the sentinel that it is or belongs to."""


def wants_color(choice: ColorChoice, stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether to colour what goes to `stream`: with "auto" if it is a terminal and NO_COLOR is not set."""
    if choice != "auto":
        return choice == "always"
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def view_sample(sample: Sample, tokenizer: Tokenizer, color: bool) -> str:
    """A sample as the model sees it: where it comes from, what the encoder reads, what the decoder does.

    The target is the token that the decoder is given first and all that it then predicts; where it reads
    something else than what it has predicted, both are shown. Lines are not broken, and begin with a Latin
    word, so that right-to-left text keeps its place between the sentinels.
    """
    source, decoder_input, labels = sample.example
    num_sentinels = sum(map(tokenizer.vocabulary.is_sentinel, source.tolist()))
    lines = [
        f"position {sample.position}: {printable(sample.language)}, {sample.objective}, "
        f"epoch {sample.epoch:,}, item {sample.item:,}; source {len(source):,} tokens with "
        f"{num_sentinels:,} sentinels, target {len(labels):,} tokens",
        f"source: {_shown(parts(source, tokenizer), color)}",
    ]
    if np.array_equal(decoder_input[1:], labels[:-1]):
        target = np.concatenate([decoder_input[:1], labels])
        lines.append(f"target: {_shown(span_parts(target, tokenizer), color)}")
    else:
        lines.append(f"decoder reads: {_shown(span_parts(decoder_input, tokenizer), color)}")
        lines.append(f"decoder predicts: {_shown(span_parts(labels, tokenizer), color)}")
    return "\n".join(lines)


def parts(tokens: NDArray[np.int32], tokenizer: Tokenizer) -> Iterator[Part]:
    """Tokens [tokens] as stretches of text and single special tokens, of which sentinels name their span."""
    for text, is_special in tokenizer.segments(tokens.tolist()):
        sentinel = _SENTINEL.fullmatch(text) if is_special else None
        if is_special:
            text = f" {text}"
        elif unicodedata.category(text[:1] or " ").startswith("M"):  # it has no letter to stand on
            text = _DOTTED_CIRCLE + text
        yield Part(printable(text), is_special, int(sentinel[1]) if sentinel else None)


def span_parts(tokens: NDArray[np.int32], tokenizer: Tokenizer) -> Iterator[Part]:
    """As `parts`, for the decoder's side: what follows a sentinel, up to the next one, is of its span."""
    span = None
    for part in parts(tokens, tokenizer):
        span = span if part.span is None else part.span
        yield part._replace(span=span)


def _shown(line: Iterator[Part], color: bool) -> str:
    first, *others = [*line] or [Part("", False, None)]
    shown = [first._replace(text=first.text.removeprefix(" ")), *others]
    return "".join(_colored(part) if color else part.text for part in shown)


def _colored(part: Part) -> str:
    if part.span is None:
        return f"{_FAINT}{part.text}{_RESET}" if part.is_special else part.text
    is_sentinel = part.is_special and _SENTINEL.fullmatch(part.text.strip())
    weight = _BOLD if is_sentinel else ""
    return f"{weight}\x1b[38;5;{_COLORS[part.span % len(_COLORS)]}m{part.text}{_RESET}"
