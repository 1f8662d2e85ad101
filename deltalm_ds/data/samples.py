"""From a global position to a training sample, and the fixed samples of validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltalm_ds.data.corpus import Corpus, Source
from deltalm_ds.data.corrupted import CorruptedItems
from deltalm_ds.data.examples import Example, Examples
from deltalm_ds.data.masked import MaskedExample
from deltalm_ds.data.order import Location, SampleOrder
from deltalm_ds.data.permutation import stream_key
from deltalm_ds.data.schedule import PRETRAINING, OrderForm, RunLength, plan_phases
from deltalm_ds.data.settings import DataSettings, trains_encoder
from deltalm_ds.data.tasks import build_task
from deltalm_ds.data.windows import Windows

RULES_VERSION = 1
"""To be raised whenever equal data and settings come to give other samples."""

ExampleT = TypeVar("ExampleT", Example, MaskedExample)


class GroupName(NamedTuple):
    """What the samples of one source have in common, for monitoring."""

    objective: str
    """"span_corruption", "translation_span_corruption", "translation", "one_side", "mlm" or "tlm"."""
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
    example: Example | MaskedExample
    """What the model reads and predicts. Without labels where the item has fewer than 2 tokens, or, for an
    encoder, no ordinary piece."""


class _Task:
    """A source with its items, its objective and its name."""

    def __init__(self, source: Source, corpus: Corpus, settings: DataSettings) -> None:
        is_monolingual = source.kind == "monolingual"
        objective = settings.monolingual_objective if is_monolingual else settings.pair_objective
        self.source = source
        self.corruption = settings.monolingual_corruption if is_monolingual else settings.pair_corruption
        self.group = GroupName(objective.replace("-", "_"), source.name)
        self.windows, self._make_example = build_task(
            objective,
            source.dataset,
            corpus.vocabulary,
            corruption=self.corruption,
            masking=settings.masking,
            max_source_length=settings.max_source_length,
            max_target_length=settings.max_target_length,
        )
        is_corrupted = objective in ("span-corruption", "translation-span-corruption")
        self.read_together = self.windows if is_corrupted and isinstance(self.windows, Windows) else None
        """The items if they are read and corrupted many at once."""

    def example(self, item: int, stream: int, number: int) -> Example | MaskedExample:
        """An item corrupted by the masks that `stream` and `number` name."""
        return self._make_example(self.windows.tokens(item), key=(stream, number))


class SampleReader:
    """The training samples of a corpus, by global position: equal arguments, equal samples, anywhere.

    It can be sent to another process, which then maps the files itself.

    Args:
        corpus: an opened prepared folder.
        settings: lengths, objectives and mixture.
        seed: names order and masks.
        run: its length, which a cap on repeats and changes of the mixture need.
        form: how the order is made; fine-tuning has shorter blocks.

    Raises: UserError if there is nothing to train on or if the objectives do not fit the vocabulary.
    """

    def __init__(
        self,
        corpus: Corpus,
        settings: DataSettings,
        seed: int,
        run: RunLength | None = None,
        form: OrderForm = PRETRAINING,
    ) -> None:
        self.trains_encoder = trains_encoder(corpus, settings)
        """Whether samples are for an encoder alone, with a MaskedExample each."""
        self._tasks = [_Task(source, corpus, settings) for source in corpus.sources("train")]
        sources = [task.source for task in self._tasks]
        num_items = [task.windows.num_items for task in self._tasks]
        self.phases = plan_phases(
            sources, num_items, settings.mixture, settings.changes, settings.max_epochs, run, form
        )
        """Samples of each source in every block of the order."""
        names = [source.name for source in sources]
        self.order = SampleOrder(names, num_items, self.phases.quotas, seed, self.phases.first_blocks)
        self.sources = sources
        """The training sources."""
        self.group_names = [task.group for task in self._tasks]
        """Objective and language of each source, which `Sample.source_index` numbers."""
        self._masks = stream_key("masks", seed)
        corrupted = [
            (task.read_together, task.corruption) for task in self._tasks if task.read_together is not None
        ]
        self._corrupted = CorruptedItems(corrupted, corpus.vocabulary.first_sentinel_id)
        # The number of each source among those, and -1 for one that has another objective.
        is_corrupted = np.array([task.read_together is not None for task in self._tasks])
        self._among_corrupted = np.where(is_corrupted, np.cumsum(is_corrupted) - 1, -1)
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
        made: list[Example] | list[MaskedExample]
        if self.trains_encoder:
            made = [self._single(*at, MaskedExample) for at in self._places(positions, located)]
        else:
            examples = self.examples(positions, located)
            made = [examples.example(number) for number in range(len(positions))]
        source, _, epoch, item = (column.tolist() for column in located)
        return [
            Sample(
                position=position,
                source_index=source[i],
                epoch=epoch[i],
                item=item[i],
                **self.group_names[source[i]]._asdict(),
                example=made[i],
            )
            for i, position in enumerate(positions.tolist())
        ]

    def examples(self, positions: NDArray[np.int64], located: Location) -> Examples:
        """The examples of one or more positions, where `located` is what the order has there.

        Not for an encoder alone.
        """
        among = self._among_corrupted[located.source]
        if among.min() >= 0:
            return self._corrupted.examples(among, located.item, self._masks, positions)
        together, singly = np.flatnonzero(among >= 0), np.flatnonzero(among < 0)
        parts = []
        if len(together):
            made = self._corrupted.examples(
                among[together], located.item[together], self._masks, positions[together]
            )
            parts.append((together, made))
        if len(singly):
            there = Location(*(column[singly] for column in located))
            places = self._places(positions[singly], there)
            parts.append((singly, Examples.of([self._single(*at, Example) for at in places])))
        return Examples.merged(parts)

    @staticmethod
    def _places(positions: NDArray[np.int64], located: Location) -> Iterator[tuple[int, int, int]]:
        """Position, source and item of every place."""
        return zip(positions.tolist(), located.source.tolist(), located.item.tolist(), strict=True)

    def _single(self, position: int, source: int, item: int, kind: type[ExampleT]) -> ExampleT:
        example = self._tasks[source].example(item, self._masks, position)
        assert isinstance(example, kind)
        return example

    def num_tokens(self, positions: ArrayLike) -> NDArray[np.int64]:
        """Tokens of text, before corruption, of the samples at `positions` [positions], reading no text."""
        source, _, _, item = self.order.locate(positions)
        tokens = np.empty(len(source), dtype=np.int64)
        for index in np.unique(source):
            here = source == index
            tokens[here] = self._tasks[index].windows.num_tokens(item[here])
        return tokens

    def fingerprint(self) -> dict[str, Any]:
        """Everything that the samples depend on, part by part; a resumed run must have the same."""
        settings = self._settings
        objectives = {
            "monolingual": settings.monolingual_objective,
            "pairs": settings.pair_objective,
            "masked_share": settings.masked_share,
            "form": settings.corruption_form,
            "densities": [settings.monolingual_density, settings.translation_density],
            "mean_span_length": settings.mean_span_length,
            "max_lengths": [settings.max_source_length, settings.max_target_length],
        }
        return {
            "tokenizer": self._corpus.manifest.tokenizer.sha256,
            "data": self._corpus.fingerprint,
            "objectives": objectives,
            "mixture": self._described_mixture(),
            "seed": str(self._seed),
            "rules": str(RULES_VERSION),
        }

    def _described_mixture(self) -> dict[str, str]:
        """The quotas of every source, and from which block on."""
        blocks = self.phases.first_blocks.tolist()
        return {
            source.name: ", ".join(
                f"{quota} from block {block}" if block else str(quota)
                for block, quota in zip(blocks, quotas.tolist(), strict=True)
            )
            for source, quotas in zip(self.sources, self.phases.quotas.T, strict=True)
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
        trains_encoder(corpus, settings)  # or a UserError
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
