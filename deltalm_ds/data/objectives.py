"""Span corruption: text with some spans replaced by sentinels on one side, those spans on the other.

Two published forms, on monolingual text and on concatenated sentence pairs alike:

- "group", of the code of DeltaLM's authors. n = ⌊length · density⌋ tokens are masked in max(⌊n / mean⌋, 1)
  spans; their lengths are a uniform composition of n, and each stands before another kept token, those being
  a uniform subset. So spans never touch and the last token is never masked. The target is
  `<mask_0> span_0 <mask_1> span_1 …` and no more; the decoder reads all of it but the last token and predicts
  all of it but the first.
- "t5", of T5 (Raffel et al., 2020). Both counts are rounded to nearest; masked and kept tokens are each cut
  into as many parts by a uniform composition, and the parts alternate, a kept one first. So the last token is
  always masked. Source and target end with `</s>`, and the decoder starts from `</s>`.

The result is a pure function of tokens and key: Philox words of that key, ranked, choose the subsets. NumPy
keeps the words of a bit generator stable between its versions (not so what its distributions make of them).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.examples import Example, Examples, Texts
from deltalm_ds.data.native import functions as native
from deltalm_ds.data.native.library import library
from deltalm_ds.errors import UserError
from deltalm_ds.text.vocabulary import Vocabulary

CorruptionForm = Literal["group", "t5"]
MaskKey = tuple[int, int]
"""Two 64-bit numbers that name a sample's masks: a key of the stream, and the sample's number within it."""


class Lengths(NamedTuple):
    """Counts that follow from the number of tokens alone; numbers or arrays."""

    noise: NDArray[np.int64]
    """Masked tokens."""
    spans: NDArray[np.int64]
    """Spans, and so sentinels."""
    source: NDArray[np.int64]
    """Tokens of the corrupted source."""
    target: NDArray[np.int64]
    """Tokens of the whole target (the group's decoder reads one less)."""
    decoder: NDArray[np.int64]
    """Tokens that the decoder reads, and labels."""


@dataclass(frozen=True)
class SpanCorruption:
    """One objective. UserError at construction where density and mean span length leave too little text."""

    density: float
    """Share of the tokens that is masked, within 0..1."""
    mean_span_length: float = 3.0
    """Masked tokens per span, on average."""
    form: CorruptionForm = "group"
    """Which published form."""

    def __post_init__(self) -> None:
        if self.form not in ("group", "t5"):
            raise UserError(f"corruption form {self.form!r} does not exist: choose group or t5")
        if not 0.0 < self.density < 1.0:
            raise UserError(f"a corruption density lies between 0 and 1, not at {self.density}")
        if not self.mean_span_length >= 1.0:
            raise UserError(f"a mean span length is at least 1, not {self.mean_span_length}")
        if self.density * (1.0 + 1.0 / self.mean_span_length) > 1.0:
            raise UserError(
                f"density {self.density} in spans of {self.mean_span_length} leaves fewer tokens than spans "
                "need to stand apart: lower the density or raise the mean span length"
            )

    def lengths(self, num_tokens: NDArray | int) -> Lengths:
        """All counts for texts of `num_tokens` tokens, element by element.

        A text of fewer than 2 tokens is left as it is, with no spans and nothing for the decoder.
        """
        tokens = np.asarray(num_tokens, dtype=np.int64)
        rounded = np.floor if self.form == "group" else np.rint
        noise = np.clip(rounded(tokens * self.density).astype(np.int64), 1, np.maximum(tokens - 1, 1))
        spans = np.maximum(rounded(noise / self.mean_span_length).astype(np.int64), 1)
        spans = np.minimum(spans, np.maximum(tokens - noise, 1))  # rounding up can ask for one too many
        spans, noise = np.where(tokens < 2, 0, spans), np.where(tokens < 2, 0, noise)
        end = np.where(tokens < 2, 0, 1 if self.form == "t5" else 0)
        target = noise + spans + end
        decoder = target if self.form == "t5" else np.maximum(target - 1, 0)
        return Lengths(noise, spans, tokens - noise + spans + end, target, decoder)

    def window_length(self, max_source_length: int) -> int:
        """How many tokens of text make one sample.

        The group cuts text into windows of the source's longest length. T5 takes the longest window whose
        corrupted source, `</s>` counted, is no longer than that; at density one half, one token less where
        the target would be longer (as in T5's code).
        """
        if self.form == "group":
            return max_source_length
        tokens = np.arange(1, 2 + int(max_source_length / (1.0 - self.density)) * 2)
        lengths = self.lengths(tokens)
        last = int(np.argmax(lengths.source > max_source_length)) - 1
        if self.density == 0.5 and lengths.target[last] > max_source_length:
            last -= 1
        return int(tokens[last])

    def capacity(self, max_source_length: int, max_target_length: int, num_sentinels: int) -> int:
        """The most tokens of text whose source, decoder side and spans all fit; at least 1."""
        tokens = np.arange(1, 4 + max_source_length + max_target_length)  # their sides cannot be shorter
        lengths = self.lengths(tokens)
        fits = (
            (lengths.source <= max_source_length)
            & (lengths.decoder <= max_target_length)
            & (lengths.spans <= num_sentinels)
        )
        return int(tokens[np.argmin(fits)]) - 1

    def spans(self, num_tokens: int, key: MaskKey) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the spans start in a text of at least 2 tokens and how long they are, [spans] int64 each."""
        noise, spans = _noise_and_spans(self, num_tokens)
        words = np.random.Philox(key=np.array(key, dtype=np.uint64)).random_raw(num_tokens)
        lengths = _composition(words[:noise], spans)
        if self.form == "group":
            kept_before = _subset(words[noise:], spans)
        else:
            kept_before = np.cumsum(_composition(words[noise:], spans))
        return kept_before + np.cumsum(lengths) - lengths, lengths

    def corrupt(self, tokens: NDArray[np.integer], first_sentinel_id: int, key: MaskKey) -> Example:
        """The training example of a text.

        Args:
            tokens: [tokens] ids.
            first_sentinel_id: id of `<mask_0>`; `<mask_i>` is i above it. That there are enough of them is
                `check_objective`'s to know.
            key: names the masks.
        """
        num_tokens = len(tokens)
        if num_tokens < 2:
            nothing = np.empty(0, dtype=np.int32)
            return Example(tokens.astype(np.int32), nothing, nothing)
        starts, lengths = self.spans(num_tokens, key)
        sentinels = np.arange(first_sentinel_id, first_sentinel_id + len(starts), dtype=np.int32)
        edges = np.zeros(num_tokens + 1, dtype=np.int8)
        edges[starts] = 1
        edges[starts + lengths] = -1  # no span starts where another ends: they never touch
        masked = np.add.accumulate(edges[:-1], dtype=np.int8).view(bool)

        # Each side is the text with sentinels written over tokens that this side leaves out: a span's first
        # token in the source; in the target the kept token before a span, or the place before the text.
        ends_text = self.form == "t5"
        source = np.empty(num_tokens + 1, dtype=np.int32)
        source[:-1], source[-1] = tokens, Vocabulary.EOS
        source[starts] = sentinels
        in_source = np.empty(num_tokens + 1, dtype=bool)
        np.logical_not(masked, out=in_source[:-1])
        in_source[starts], in_source[-1] = True, ends_text
        target = np.empty(num_tokens + 2, dtype=np.int32)
        target[1:-1], target[-1] = tokens, Vocabulary.EOS
        target[starts] = sentinels
        in_target = np.empty(num_tokens + 2, dtype=bool)
        in_target[0], in_target[1:-1] = False, masked
        in_target[starts], in_target[-1] = True, ends_text
        return self._example(source[in_source], target[in_target])

    def corrupt_all(
        self, texts: Texts, first_sentinel_id: int, stream: int, numbers: NDArray[np.integer]
    ) -> Examples:
        """What `corrupt` makes of one or more texts, the masks of each named by (stream, its number)."""
        if library() is None:
            keys = [(stream, int(number)) for number in numbers]
            return Examples.of(
                [self.corrupt(texts.text(i), first_sentinel_id, key) for i, key in enumerate(keys)]
            )
        num_bits = int(texts.lengths.max()).bit_length()
        counts = Lengths(*_table_of_lengths(self, num_bits)[:, texts.lengths])
        target_lengths = counts.decoder + (counts.spans > 0)  # decoder input and labels overlap
        source_starts = np.cumsum(counts.source) - counts.source
        target_starts = np.cumsum(target_lengths) - target_lengths
        num_source = int(counts.source.sum())
        tokens = native.corrupt(
            texts.tokens,
            (*texts[1:], counts.noise, counts.spans, numbers),
            *(stream, first_sentinel_id, self.form == "t5"),
            *(num_source, int(target_lengths.sum())),
        )
        target_starts += num_source + native.TOKENS_BEYOND
        places = (source_starts, counts.source, target_starts, target_starts + 1, counts.decoder)
        return Examples(tokens, np.stack(places))

    def _example(self, source: NDArray[np.int32], target: NDArray[np.int32]) -> Example:
        if self.form == "group":
            return Example(source, target[:-1], target[1:])
        decoder_input = np.empty_like(target)
        decoder_input[0], decoder_input[1:] = Vocabulary.EOS, target[:-1]
        return Example(source, decoder_input, target)


def check_objective(
    objective: SpanCorruption, name: str, max_source_length: int, max_target_length: int, num_sentinels: int
) -> None:
    """UserError if a whole window needs more sentinels, or more places of the decoder, than there are."""
    window_length = objective.window_length(max_source_length)
    limits = (max_source_length, max_target_length, num_sentinels)
    check_counts(objective, f"{name} on windows", window_length, *limits)


def check_counts(
    objective: SpanCorruption,
    what: str,
    num_tokens: int,
    max_source_length: int,
    max_target_length: int,
    num_sentinels: int,
) -> None:
    """The same for any text of `num_tokens` tokens, `what` being how the error names it."""
    counts = objective.lengths(num_tokens)
    what = (
        f"{what} of {num_tokens} tokens (max_source_length {max_source_length}, density "
        f"{objective.density}, mean span {objective.mean_span_length}, form {objective.form})"
    )
    if counts.spans > num_sentinels:
        raise UserError(
            f"{what} needs {counts.spans} sentinels and the vocabulary has {num_sentinels}: lower "
            f"max_source_length or the density, raise mean_span_length, or prepare the data with "
            f"{counts.spans} sentinels"
        )
    if counts.decoder > max_target_length:
        raise UserError(
            f"{what} gives targets of {counts.decoder} tokens, above max_target_length {max_target_length}: "
            "lower max_source_length or the density, or raise max_target_length"
        )


@functools.lru_cache(maxsize=64)
def _table_of_lengths(objective: SpanCorruption, num_bits: int) -> NDArray[np.int64]:
    """`Lengths` of texts of 0 .. 2^num_bits - 1 tokens, [counts, tokens]."""
    return np.stack(objective.lengths(np.arange(1 << num_bits)))


@functools.lru_cache(maxsize=1 << 14)
def _noise_and_spans(objective: SpanCorruption, num_tokens: int) -> tuple[int, int]:
    counts = objective.lengths(num_tokens)
    return int(counts.noise), int(counts.spans)


def _subset(words: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
    """A uniform subset of range(len(words)) with `size` members, ascending: where the least words stand."""
    if size == 0:
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(words <= np.partition(words, size - 1)[size - 1])[:size]


def _composition(words: NDArray[np.uint64], num_parts: int) -> NDArray[np.int64]:
    """len(words) as a sum of `num_parts` positive integers in order, uniform over all such sums."""
    cuts = np.empty(num_parts + 1, dtype=np.int64)
    cuts[0], cuts[1:-1], cuts[-1] = 0, _subset(words[1:], num_parts - 1) + 1, len(words)
    return cuts[1:] - cuts[:-1]
