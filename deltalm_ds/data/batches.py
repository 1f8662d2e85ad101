"""From positions to packed batches: where global batches end, and which rank runs what of them."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltalm_ds.data.examples import Example, Examples
from deltalm_ds.data.masked import MaskedExample
from deltalm_ds.data.samples import Sample, SampleReader
from deltalm_ds.errors import UserError
from deltalm_ds.text.vocabulary import Vocabulary

IGNORE = -100
"""The label of a place that no loss is taken of."""

_LOOKAHEAD = 1024
"""Positions whose lengths are looked up at once when batches end by a token budget."""

ArrayT = TypeVar("ArrayT")
ExampleT = TypeVar("ExampleT", Example, MaskedExample)
CountTokens = Callable[[NDArray[np.int64]], NDArray[np.int64]]


@dataclass(frozen=True)
class PackedBatch(Generic[ArrayT]):
    """A micro-batch of one rank: sequences without padding, one after the other, and where they end.

    The arrays are NumPy's, or tensors after `deltalm_ds.data.loader.to_tensors`. There is always at least one
    sequence on either side; a micro-batch that got no sample holds one of one token, with an ignored label.
    """

    source_tokens: ArrayT
    """[source_tokens] int64, what the encoder reads."""
    source_cumulative_lengths: ArrayT
    """[sequences + 1] int32: sequence i is source_tokens[c[i]:c[i + 1]]."""
    max_source_length: int
    """Longest sequence of the encoder."""
    decoder_input: ArrayT
    """[target_tokens] int64, what the decoder reads."""
    labels: ArrayT
    """[target_tokens] int64, what it is to predict; IGNORE in a micro-batch without samples."""
    target_cumulative_lengths: ArrayT
    """[sequences + 1] int32, of decoder_input and labels."""
    max_target_length: int
    """Longest sequence of the decoder."""
    sample_ids: ArrayT
    """[sequences] int64, the samples' global positions."""
    groups: ArrayT
    """[sequences] int64, the samples' sources: indices of the reader's `group_names`."""
    num_target_tokens: int
    """Labels that count: the micro-batch's weight. 0 without samples."""


@dataclass(frozen=True)
class MaskedBatch(Generic[ArrayT]):
    """A micro-batch for an encoder alone, packed as `PackedBatch` is; without samples, one token again."""

    source_tokens: ArrayT
    """[source_tokens] int64, what the encoder reads."""
    source_cumulative_lengths: ArrayT
    """[sequences + 1] int32: sequence i is source_tokens[c[i]:c[i + 1]]."""
    max_source_length: int
    """Longest sequence of the encoder."""
    places: ArrayT
    """[target_tokens] int64, where in source_tokens each label stands."""
    labels: ArrayT
    """[target_tokens] int64, what it is to predict there; IGNORE in a micro-batch without samples."""
    target_cumulative_lengths: ArrayT
    """[sequences + 1] int32, of places and labels."""
    sample_ids: ArrayT
    """[sequences] int64, the samples' global positions."""
    groups: ArrayT
    """[sequences] int64, the samples' sources: indices of the reader's `group_names`."""
    num_target_tokens: int
    """Labels that count: the micro-batch's weight. 0 without samples."""


MicroBatch: TypeAlias = PackedBatch[ArrayT] | MaskedBatch[ArrayT]


@dataclass(frozen=True)
class GlobalBatch:
    """What all ranks together run in one optimizer step: the samples at a range of positions."""

    step: int
    """Number of the optimizer step."""
    first_position: int
    """Global position of its first sample."""
    end_position: int
    """One beyond its last; the first of the next step."""


@dataclass(frozen=True)
class StepBatches:
    """What one rank runs in one optimizer step."""

    step: int
    """Number of the optimizer step."""
    first_position: int
    """Global position of the first sample of the global batch."""
    end_position: int
    """One beyond its last: the position to resume from when this step is done."""
    micro_batches: Sequence[MicroBatch[NDArray]]
    """To run one after the other; equally many on every rank."""
    num_source_tokens: int
    """Tokens of this rank's samples for the encoder."""
    num_target_tokens: int
    """Labels of this rank's samples."""


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Where global batches end: after `batch_size` samples, or before exceeding `batch_tokens`. Give one."""

    batch_size: int | None = None
    """Samples of every global batch."""
    batch_tokens: int | None = None
    """Most tokens of text, before corruption, of a global batch (which has at least one sample)."""

    def __post_init__(self) -> None:
        if (self.batch_size is None) == (self.batch_tokens is None):
            raise UserError("give either a batch size in samples or one in tokens")
        if (self.batch_size or self.batch_tokens or 0) < 1:
            raise UserError("a batch must have at least one sample or token")

    def batches(
        self,
        count_tokens: CountTokens,
        step: int = 0,
        position: int = 0,
        end_step: int | None = None,
        skipped: Sequence[tuple[int, int]] = (),
    ) -> Iterator[GlobalBatch]:
        """The global batches from `step`, whose first sample is at `position`, up to before `end_step`.

        A batch that would touch a range of positions in `skipped` (first, end; ascending) begins at its end.

        Args:
            count_tokens: tokens of the samples at some positions (`SampleReader.num_tokens`), asked only
                where batches end by tokens.
        """
        ends = self._ends(count_tokens, position)
        while end_step is None or step < end_step:
            end = next(ends)
            for first_skipped, end_skipped in skipped:
                if position < end_skipped and first_skipped < end:
                    position = end_skipped
                    ends = self._ends(count_tokens, position)
                    end = next(ends)
            yield GlobalBatch(step, position, end)
            step, position = step + 1, end

    def _ends(self, count_tokens: CountTokens, position: int) -> Iterator[int]:
        if self.batch_size is not None:
            return itertools.count(position + self.batch_size, self.batch_size)
        return self._ends_by_tokens(count_tokens, position)

    def _ends_by_tokens(self, count_tokens: CountTokens, position: int) -> Iterator[int]:
        assert self.batch_tokens is not None
        first, tokens = position, 0
        while True:
            for count in count_tokens(np.arange(position, position + _LOOKAHEAD)).tolist():
                if position > first and tokens + count > self.batch_tokens:
                    yield position
                    first, tokens = position, 0
                position, tokens = position + 1, tokens + count


@dataclass(frozen=True)
class StepReader:
    """Makes one rank's part of any global batch. It can be sent to another process.

    Sample i of a global batch goes to place i mod (micro-batches · ranks); place p is micro-batch p div ranks
    of rank p mod ranks. So shares differ by at most one sample. With `by_tokens` the longest sample goes
    first, each to the place with the fewest tokens so far: no micro-batch then has more tokens than the mean
    and one sample.
    """

    reader: SampleReader
    """The samples."""
    rank: int
    """Which rank's part."""
    world_size: int
    """Number of ranks."""
    num_micro_batches: int
    """Micro-batches of every rank in a step."""
    by_tokens: bool = False
    """Whether shares are equal in tokens instead of samples."""

    def read(self, batch: GlobalBatch) -> StepBatches:
        """What this rank runs of a global batch."""
        positions = np.arange(batch.first_position, batch.end_position)
        num_places = self.world_size * self.num_micro_batches
        if self.by_tokens:
            shares = _shares_of_tokens(positions, self.reader.num_tokens(positions), num_places)
        else:
            shares = [positions[place::num_places] for place in range(num_places)]
        shares = shares[self.rank :: self.world_size]
        micro_batches = self._packed(shares)
        with_samples = [micro_batch for micro_batch in micro_batches if micro_batch.num_target_tokens]
        return StepBatches(
            step=batch.step,
            first_position=batch.first_position,
            end_position=batch.end_position,
            micro_batches=micro_batches,
            num_source_tokens=sum(len(micro_batch.source_tokens) for micro_batch in with_samples),
            num_target_tokens=sum(micro_batch.num_target_tokens for micro_batch in with_samples),
        )

    def _packed(self, shares: Sequence[NDArray[np.int64]]) -> Sequence[MicroBatch[NDArray]]:
        """The samples at some positions, share by share; made at once, which takes less time."""
        if self.reader.trains_encoder:
            return [pack_masked(self.reader.samples(share)) for share in shares]
        positions = np.concatenate(shares)
        if not len(positions):
            return [_without_samples() for _ in shares]
        located = self.reader.order.locate(positions)
        examples = self.reader.examples(positions, located)
        return _pack(positions, located.source, examples, [len(share) for share in shares])


def _shares_of_tokens(
    positions: NDArray[np.int64], num_tokens: NDArray[np.int64], num_places: int
) -> list[NDArray[np.int64]]:
    """Positions by place, about equal in tokens; in ascending order within a place."""
    places = np.empty(len(positions), dtype=np.int64)
    totals = [(0, place) for place in range(num_places)]
    for number in np.argsort(-num_tokens, kind="stable").tolist():
        total, place = totals[0]
        places[number] = place
        heapq.heapreplace(totals, (total + int(num_tokens[number]), place))
    return [positions[places == place] for place in range(num_places)]


def pack_samples(samples: Sequence[Sample]) -> PackedBatch[NDArray]:
    """One micro-batch of some samples, in their order; those without labels are left out."""
    if not samples:
        return _without_samples()
    positions = np.array([sample.position for sample in samples], dtype=np.int64)
    groups = np.array([sample.source_index for sample in samples], dtype=np.int64)
    examples = Examples.of([_checked(sample.example, Example) for sample in samples])
    return _pack(positions, groups, examples, [len(samples)])[0]


def _pack(
    positions: NDArray[np.int64], groups: NDArray[np.int64], examples: Examples, sizes: Sequence[int]
) -> list[PackedBatch[NDArray]]:
    """Micro-batches of these sizes, as `pack_samples` makes one; `groups` are the samples' sources."""
    bounds = _ends(sizes)
    has_labels = examples.target_lengths > 0
    if not has_labels.all():
        bounds = _ends(has_labels)[bounds]
        positions, groups, examples = positions[has_labels], groups[has_labels], examples.at(has_labels)
    source_ends, target_ends = _ends(examples.source_lengths), _ends(examples.target_lengths)

    def part(start: int, end: int) -> PackedBatch[NDArray]:
        if start == end:
            return _without_samples()
        sources, targets = source_ends[start : end + 1], target_ends[start : end + 1]
        num_source, num_target = int(sources[-1] - sources[0]), int(targets[-1] - targets[0])
        source_tokens, decoder_input, labels = examples.joined(start, end, num_source, num_target)
        return PackedBatch(
            source_tokens=source_tokens,
            source_cumulative_lengths=(sources - sources[0]).astype(np.int32),
            max_source_length=int(examples.source_lengths[start:end].max()),
            decoder_input=decoder_input,
            labels=labels,
            target_cumulative_lengths=(targets - targets[0]).astype(np.int32),
            max_target_length=int(examples.target_lengths[start:end].max()),
            sample_ids=positions[start:end],
            groups=groups[start:end],
            num_target_tokens=num_target,
        )

    return [part(start, end) for start, end in itertools.pairwise(bounds.tolist())]


def _without_samples() -> PackedBatch[NDArray]:
    """A micro-batch of weight zero, for a rank that got no sample but has to run as often as the others."""
    end_of_sentence = np.array([Vocabulary.EOS], dtype=np.int64)
    ends = np.array([0, 1], dtype=np.int32)
    return PackedBatch(
        source_tokens=end_of_sentence,
        source_cumulative_lengths=ends,
        max_source_length=1,
        decoder_input=end_of_sentence,
        labels=np.array([IGNORE], dtype=np.int64),
        target_cumulative_lengths=ends,
        max_target_length=1,
        sample_ids=np.zeros(1, dtype=np.int64),
        groups=np.zeros(1, dtype=np.int64),
        num_target_tokens=0,
    )


def _joined(sequences: list[NDArray[np.int32]]) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
    """Sequences [length] end to end, int64 [tokens]; their cumulative lengths; the longest length."""
    ends = np.zeros(len(sequences) + 1, dtype=np.int32)
    lengths = [len(sequence) for sequence in sequences]
    np.cumsum(lengths, out=ends[1:])
    return np.concatenate(sequences, dtype=np.int64), ends, max(lengths)


def pack_masked(samples: Sequence[Sample]) -> MaskedBatch[NDArray]:
    """The same of samples for an encoder alone."""
    samples = [sample for sample in samples if len(sample.example.labels)]
    if not samples:
        nothing = _without_samples()
        return MaskedBatch(
            source_tokens=nothing.source_tokens,
            source_cumulative_lengths=nothing.source_cumulative_lengths,
            max_source_length=nothing.max_source_length,
            places=np.zeros(1, dtype=np.int64),
            labels=nothing.labels,
            target_cumulative_lengths=nothing.target_cumulative_lengths,
            sample_ids=nothing.sample_ids,
            groups=nothing.groups,
            num_target_tokens=0,
        )
    examples = [_checked(sample.example, MaskedExample) for sample in samples]
    source, source_ends, max_source = _joined([example.source for example in examples])
    places, target_ends, _ = _joined([example.places for example in examples])
    labels, _, _ = _joined([example.labels for example in examples])
    return MaskedBatch(
        source_tokens=source,
        source_cumulative_lengths=source_ends,
        max_source_length=max_source,
        places=places + np.repeat(source_ends[:-1], np.diff(target_ends)),
        labels=labels,
        target_cumulative_lengths=target_ends,
        sample_ids=np.array([sample.position for sample in samples], dtype=np.int64),
        groups=np.array([sample.source_index for sample in samples], dtype=np.int64),
        num_target_tokens=len(labels),
    )


def _checked(example: Example | MaskedExample, kind: type[ExampleT]) -> ExampleT:
    assert isinstance(example, kind), "samples of an encoder and of an encoder with a decoder do not mix"
    return example


def _ends(lengths: ArrayLike) -> NDArray[np.int64]:
    """Where pieces of these lengths begin and end, one after the other, [pieces + 1]."""
    return np.concatenate([[0], np.cumsum(lengths)])
