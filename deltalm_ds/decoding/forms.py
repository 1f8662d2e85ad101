"""Outputs as lines of text, TSV or JSONL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deltalm_ds.decoding.options import OutputFormat

COLUMNS = ("id", "rank", "score", "log_probability", "token_scores", "text", "source")
"""Of TSV, and fields of JSONL."""

_NUM_DECIMALS = 6
# Whatever some reader takes for the end of a line or column.
_BREAKS = dict.fromkeys(map(ord, "\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"), " ")


@dataclass(frozen=True)
class ScoredText:
    """A text that a model has written or was given."""

    text: str
    """Without special tokens, on one line."""
    score: float
    """Its summed log-probability, in nats, divided by a power of its tokens: the length penalty."""
    token_scores: tuple[float, ...]
    """Log-probability of each token, the last one's of `</s>`."""


def one_line(text: str) -> str:
    """The text with blanks in place of tabs and line ends."""
    return text.translate(_BREAKS)


def head(form: OutputFormat) -> str:
    """What stands before the first line."""
    return "\t".join(COLUMNS) + "\n" if form == "tsv" else ""


def formatted(
    form: OutputFormat, first_line: int, sources: Sequence[str], outputs: Iterable[Sequence[ScoredText]]
) -> str:
    """The outputs of some lines, of which `first_line` are before; best first for each.

    text: the best of each line. tsv and jsonl: a line for each output, with the number of its source line.
    """
    if form == "text":
        return "".join(f"{best[0].text}\n" for best in outputs)
    make = _tsv_row if form == "tsv" else _json_row
    return "".join(
        make(number, rank, output, source)
        for number, (source, ranked) in enumerate(zip(sources, outputs, strict=True), first_line + 1)
        for rank, output in enumerate(ranked, 1)
    )


def _tsv_row(number: int, rank: int, output: ScoredText, source: str) -> str:
    scores = " ".join(f"{score:.{_NUM_DECIMALS}f}" for score in output.token_scores)
    score, total = (f"{value:.{_NUM_DECIMALS}f}" for value in (output.score, sum(output.token_scores)))
    return "\t".join((str(number), str(rank), score, total, scores, output.text, one_line(source))) + "\n"


def _json_row(number: int, rank: int, output: ScoredText, source: str) -> str:
    scores = [round(score, _NUM_DECIMALS) for score in output.token_scores]
    total = round(sum(output.token_scores), _NUM_DECIMALS)
    values = (number, rank, round(output.score, _NUM_DECIMALS), total, scores, output.text, source)
    return json.dumps(dict(zip(COLUMNS, values, strict=True)), ensure_ascii=False) + "\n"
