"""From a global position to a training sample, and the fixed samples of validation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltalm_ds.data.corpus import Corpus, Source
from deltalm_ds.data.examples import Example, Examples
from deltalm_ds.data.items import ItemReader
from deltalm_ds.data.mixture import block_quotas, source_shares
from deltalm_ds.data.objectives import CorruptionForm, SpanCorruption, check_objective
from deltalm_ds.data.order import Location, SampleOrder
from deltalm_ds.data.permutation import stream_key
from deltalm_ds.data.windows import MonolingualWindows, PairWindows, Windows
from deltalm_ds.errors import UserError

RULES_VERSION = 1
"""To be raised whenever equal data and settings come to give other samples."""

SHORTEST_SOURCE = 16


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What training samples are made of. Impossible values are a UserError at construction."""

    max_source_length: int = 512
    """Most tokens the encoder reads. In the group's form text is cut into windows of this length, in T5's
    into windows whose corrupted source has it."""
    max_target_length: int = 512
    """Most tokens the decoder reads."""
    corruption_form: CorruptionForm = "group"
    """Span corruption as in the code of DeltaLM's authors (group) or as in T5's (t5)."""
    monolingual_density: float = 0.15
    """Share of the tokens masked in monolingual text."""
    translation_density: float = 0.5
    """Share of the tokens masked in sentence pairs, over the concatenation of both sides."""
    mean_span_length: float = 3.0
    """Masked tokens per span, on average."""
    language_exponent: float = 0.3
    """Languages, and language pairs, are drawn in proportion to tokens to this power: 1 is as they are, 0 all
    alike."""
    monolingual_share: float = 0.8
    """Share of monolingual samples where there are sentence pairs too."""
    num_loader_workers: int = 2
    """Processes, for each rank, that make batches ahead of time; with 0 the training process makes them."""

    def __post_init__(self) -> None:
        for name in ("max_source_length", "max_target_length"):
            if getattr(self, name) < SHORTEST_SOURCE:
                raise UserError(f"{name} must be at least {SHORTEST_SOURCE}, not {getattr(self, name)}")
        if not 0.0 <= self.language_exponent <= 1.0:
            raise UserError(f"language_exponent lies within 0..1, not at {self.language_exponent}")
        if not 0.0 <= self.monolingual_share <= 1.0:
            raise UserError(f"monolingual_share lies within 0..1, not at {self.monolingual_share}")
        if self.num_loader_workers < 0:
            raise UserError(f"num_loader_workers must be 0 or more, not {self.num_loader_workers}")
        _ = self.monolingual_objective, self.translation_objective  # they check their own values

    @property
    def monolingual_objective(self) -> SpanCorruption:
        """The objective on monolingual text."""
        return SpanCorruption(self.monolingual_density, self.mean_span_length, self.corruption_form)

    @property
    def translation_objective(self) -> SpanCorruption:
        """The objective on sentence pairs."""
        return SpanCorruption(self.translation_density, self.mean_span_length, self.corruption_form)


class GroupName(NamedTuple):
    """What the samples of one source have in common, for monitoring."""

    objective: str
    """"span_corruption" or "translation_span_corruption"."""
    language: str
    """The language, "fr", or the pair, "en-fr"."""


@dataclass(frozen=True)
class Sample:
    """One training sample and where it comes from."""

    position: int
    """Global position (in validation: number within the fixed set); keys the masks and the dropout bits."""
    source_index: int
    """Number of its source, an index of the reader's `group_names`."""
    epoch: int
    """Number of the pass over its source."""
    item: int
    """Item of the source."""
    objective: str
    """As in `GroupName`."""
    language: str
    """As in `GroupName`."""
    example: Example
    """What the model reads and predicts. Without labels where the item has fewer than 2 tokens."""


class _Task:
    """A source with its items, its objective and its name."""

    def __init__(self, source: Source, corpus: Corpus, settings: DataSettings) -> None:
        vocabulary, limit = corpus.vocabulary, settings.max_source_length
        is_monolingual = source.kind == "monolingual"
        self.source = source
        self.objective = settings.monolingual_objective if is_monolingual else settings.translation_objective
        self.group = GroupName(
            "span_corruption" if is_monolingual else "translation_span_corruption", source.name
        )
        check_objective(
            self.objective, self.group.objective, limit, settings.max_target_length, vocabulary.num_sentinels
        )
        self._first_sentinel_id = vocabulary.first_sentinel_id
        window_length = self.objective.window_length(limit)
        self.windows: Windows
        if is_monolingual:
            self.windows = MonolingualWindows(source.dataset, window_length, vocabulary.num_rows)
        else:
            capacity = self.objective.capacity(limit, settings.max_target_length, vocabulary.num_sentinels)
            self.windows = PairWindows(source.dataset, window_length, capacity, vocabulary.num_rows)

    def example(self, item: int, stream: int, number: int) -> Example:
        """An item corrupted by the masks that `stream` and `number` name."""
        return self.objective.corrupt(self.windows.tokens(item), self._first_sentinel_id, (stream, number))


class SampleReader:
    """The training samples of a corpus, by global position: equal arguments, equal samples, anywhere.

    It can be sent to another process, which then maps the files itself.

    Args:
        corpus: an opened prepared folder.
        settings: lengths, objectives and mixture.
        seed: names order and masks.

    Raises: UserError if there is nothing to train on or if the objectives do not fit the vocabulary.
    """

    def __init__(self, corpus: Corpus, settings: DataSettings, seed: int) -> None:
        self._tasks = [_Task(source, corpus, settings) for source in corpus.sources("train")]
        sources = [task.source for task in self._tasks]
        shares = source_shares(
            [source.kind for source in sources],
            [source.num_tokens for source in sources],
            settings.monolingual_share,
            settings.language_exponent,
        )
        self.quotas = block_quotas(shares)
        """Samples of each source in every block of the order, [sources] int64."""
        names = [source.name for source in sources]
        num_items = [task.windows.num_items for task in self._tasks]
        self.order = SampleOrder(names, num_items, self.quotas, seed)
        self.group_names = [task.group for task in self._tasks]
        """Objective and language of each source, which `Sample.source_index` numbers."""
        self._masks = stream_key("masks", seed)
        self._objectives = list(dict.fromkeys(task.objective for task in self._tasks))
        self._objective_numbers = np.array([self._objectives.index(task.objective) for task in self._tasks])
        self._items = ItemReader([task.windows for task in self._tasks])
        self._first_sentinel_id = corpus.vocabulary.first_sentinel_id
        self._corpus, self._settings, self._seed = corpus, settings, seed

    def sample(self, position: int) -> Sample:
        """The sample at one global position."""
        return self.samples([position])[0]

    def samples(self, positions: Sequence[int] | NDArray[np.int64]) -> list[Sample]:
        """The samples at some global positions; UserError with file and offset of an impossible token id."""
        positions = np.asarray(positions, dtype=np.int64)
        if not len(positions):
            return []
        located = self.order.locate(positions)
        examples = self.examples(positions, located)
        source, _, epoch, item = (column.tolist() for column in located)
        return [
            Sample(
                position=position,
                source_index=source[i],
                epoch=epoch[i],
                item=item[i],
                **self.group_names[source[i]]._asdict(),
                example=examples.example(i),
            )
            for i, position in enumerate(positions.tolist())
        ]

    def examples(self, positions: NDArray[np.int64], located: Location) -> Examples:
        """The examples of one or more positions, where `located` is what the order has there."""
        texts = self._items.read(located.source, located.item)
        numbers = self._objective_numbers[located.source]
        parts = []
        for number, objective in enumerate(self._objectives):
            members = np.flatnonzero(numbers == number)
            if len(members):
                made = objective.corrupt_all(
                    texts.at(members), self._first_sentinel_id, self._masks, positions[members]
                )
                parts.append((members, made))
        return Examples.merged(parts)

    def num_tokens(self, positions: ArrayLike) -> NDArray[np.int64]:
        """Tokens of text, before corruption, of the samples at `positions` [positions], reading no text."""
        source, _, _, item = self.order.locate(positions)
        tokens = np.empty(len(source), dtype=np.int64)
        for index in np.unique(source):
            here = source == index
            tokens[here] = self._tasks[index].windows.num_tokens(item[here])
        return tokens

    def fingerprint(self) -> dict[str, str]:
        """Everything that the samples depend on, part by part; a resumed run must have the same."""
        settings = self._settings
        quotas = ", ".join(
            f"{task.source.name} {quota}" for task, quota in zip(self._tasks, self.quotas, strict=True)
        )
        objectives = {
            "form": settings.corruption_form,
            "densities": [settings.monolingual_density, settings.translation_density],
            "mean_span_length": settings.mean_span_length,
            "max_lengths": [settings.max_source_length, settings.max_target_length],
        }
        return {
            "tokenizer": self._corpus.manifest.tokenizer.sha256,
            "data": self._corpus.fingerprint,
            "objectives": json.dumps(objectives),
            "mixture": quotas,
            "seed": str(self._seed),
            "rules": str(RULES_VERSION),
        }


class ValidationReader:
    """A fixed set of validation samples: the first items of every valid source, source after source.

    Args:
        corpus: an opened prepared folder.
        settings: lengths and objectives.
        max_samples_per_source: the most items taken of one source.
        seed: names the masks. They are the same at every step, and, for one seed, in every run.
    """

    def __init__(
        self, corpus: Corpus, settings: DataSettings, max_samples_per_source: int, seed: int = 0
    ) -> None:
        self._tasks = [_Task(source, corpus, settings) for source in corpus.sources("valid")]
        self._streams = [stream_key("valid", seed, task.source.name) for task in self._tasks]
        counts = [min(task.windows.num_items, max_samples_per_source) for task in self._tasks]
        self._ends = np.cumsum(counts, dtype=np.int64)
        self.group_names = [task.group for task in self._tasks]
        """Objective and language of each source, which `Sample.source_index` numbers."""

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def samples(self) -> list[Sample]:
        """The whole set in its order."""
        return [self.sample(number) for number in range(len(self))]

    def sample(self, number: int) -> Sample:
        """The sample of this number, 0 ≤ number < len(self)."""
        if not 0 <= number < len(self):
            raise IndexError(f"validation sample {number} is not within 0..{len(self) - 1}")
        index = int(np.searchsorted(self._ends, number, side="right"))
        item = number - (int(self._ends[index - 1]) if index else 0)
        return Sample(
            position=number,
            source_index=index,
            epoch=0,
            item=item,
            **self.group_names[index]._asdict(),
            example=self._tasks[index].example(item, self._streams[index], item),
        )
