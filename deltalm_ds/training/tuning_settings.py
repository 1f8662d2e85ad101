"""The settings of a fine-tuning run; the command line of `finetune` is made from them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deltalm_ds.decoding.settings import SearchSettings
from deltalm_ds.downstream.options import ReadingOptions
from deltalm_ds.downstream.registry import find_task
from deltalm_ds.downstream.task import Recipe, Task
from deltalm_ds.errors import UserError
from deltalm_ds.scoring.metrics import demand_metric
from deltalm_ds.training.optimizer import OptimizerSettings
from deltalm_ds.training.run_settings import MonitoringSettings, RunSettings
from deltalm_ds.training.settings import PresetName
from deltalm_ds.weights.vocabulary_change import TagStart

SMALL_EXAMPLES = 300_000
"""Below so many training examples the recipe for small data is the default."""


def _optimizer() -> OptimizerSettings:
    return OptimizerSettings(schedule="inverse-square-root", adam_beta2=0.98)


def _monitoring() -> MonitoringSettings:
    return MonitoringSettings(
        log_every=50, validate_every=500, validation_samples=500, save_every=500, keep_checkpoints=2
    )


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(RunSettings):
    """Tune a DeltaLM for a task, in the formats that its data are published in.

    The best model by the task's own score on the validation data is left in OUTPUT/model, ready for
    `python -m deltalm_ds.generate`. Start it with `deepspeed`, `torchrun`, `mpirun` or plain `python`.
    """

    task: str
    """translation, question-generation, summarization, cross-lingual-summarization, data-to-text or
    zero-shot-summarization."""
    data: tuple[Path, ...]
    """Folders, or files, of training data; in folders the files of the validation data are found too."""
    validation_data: tuple[Path, ...] = ()
    """Files, or folders, of validation data. Default: those in --data."""
    preset: PresetName | None = None
    """Size of a new model, without --from."""
    tokenizer: Path | None = None
    """SentencePiece file, where --from names weights without one. Default for a new model: one is trained on
    the training data."""
    vocabulary_size: int = 8_000
    """Pieces of a tokenizer that is trained; fewer where the data have not so many."""
    new_pieces: Path | None = None
    """File with pieces to add to the vocabulary, one a line."""
    tag_start: TagStart = "mean"
    """What the tag of a new language begins as: the mean of the vectors of that language's text, or normal
    random numbers."""
    recipe: Literal["published", "small"] | None = None
    """Defaults of steps, batch, learning rate, warm-up and patience. Default: small below 300,000 training
    examples."""
    steps: int | None = None
    """Optimizer steps of the whole run. Default by recipe: 100,000 published, 20,000 small."""
    epochs: float | None = None
    """Passes over the training data, instead of --steps."""
    batch_tokens: int | None = None
    """Tokens of a step over all processes, sources and targets together. Default by recipe: 1,048,576
    published, 16,384 small."""
    micro_batch_tokens: int = 8_192
    """Tokens that a process computes at once; the rest of its share is accumulated."""
    temperature: float = 5.0
    """Directions are drawn in proportion to their examples to the power 1 / temperature: 1 is as they are."""
    label_smoothing: float = 0.1
    """Probability given to other pieces than the target; published."""
    max_source_length: int | None = None
    """Most tokens of a source. Default by task, published: 512."""
    max_target_length: int | None = None
    """Most tokens of a target. Default by task, published: 512."""
    freeze: tuple[str, ...] | None = None
    """Patterns of names of parameters to leave as they are: "embedding.*" "decoder.*". Default by task."""
    metric: str | None = None
    """Score that chooses the best model: bleu, chrf, ter, rouge1, rouge2, rougeL, bleu4-characters,
    rouge-characters, or loss. Default by task."""
    patience: int | None = None
    """Stop after so many validations without a better score; 0: never. Default by recipe: 10."""
    average: int = 1
    """Best models whose weights are averaged in the end."""
    beam: int | None = None
    """Hypotheses of the search in validation. Default by task: 5."""
    num_loader_workers: int = 1
    """Processes, for each rank, that make batches ahead of time; with 0 the training process makes them."""
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    optimizer_settings: OptimizerSettings = field(default_factory=_optimizer)
    monitoring: MonitoringSettings = field(default_factory=_monitoring)

    def __post_init__(self) -> None:
        super().__post_init__()
        task = find_task(self.task)
        if self.metric is not None and self.metric != "loss":
            demand_metric(self.metric)
        for name, least in (
            ("batch_tokens", 1),
            ("micro_batch_tokens", 1),
            ("vocabulary_size", 1),
            ("max_source_length", 8),
            ("max_target_length", 2),
            ("patience", 0),
            ("average", 1),
            ("beam", 1),
            ("num_loader_workers", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name.replace('_', '-')} must be at least {least}, not {value}")
        if self.epochs is not None and self.epochs <= 0:
            raise UserError(f"--epochs must be above 0, not {self.epochs}")
        if self.steps is not None and self.epochs is not None:
            raise UserError("--steps and --epochs both say how long the run is: give one of them")
        if not self.temperature >= 1:
            raise UserError(f"--temperature must be at least 1, not {self.temperature}")
        if self.from_ is not None and self.preset is not None:
            raise UserError("--preset is for new models: with --from the weights decide")
        if self.output is None and self.resume:
            raise UserError("--resume needs --output, the folder of the run to go on with")
        _ = self.search_of(task)

    def search_of(self, task: Task) -> SearchSettings:
        """How outputs are searched for in validation, and by default from the model's folder."""
        defaults = dataclasses.asdict(task.search)
        return SearchSettings(**{**defaults, "beam": self.beam or task.search.beam})

    def recipe_of(self, task: Task, num_examples: int) -> Recipe:
        """The recipe that fills in what the user left open."""
        name = self.recipe or ("small" if num_examples < SMALL_EXAMPLES else "published")
        return task.recipe if name == "published" else task.small_recipe

    def complete(self, task: Task, num_examples: int) -> FinetuneSettings:
        """The same with numbers for all but the steps, which --epochs may ask for."""
        recipe, optimizer = self.recipe_of(task, num_examples), self.optimizer_settings
        learning_rate, warmup = optimizer.learning_rate, optimizer.warmup_steps
        return dataclasses.replace(
            self,
            steps=None if self.epochs is not None else self.steps or recipe.steps,
            batch_tokens=self.batch_tokens or recipe.batch_tokens,
            patience=recipe.patience if self.patience is None else self.patience,
            max_source_length=self.max_source_length or task.max_source_length,
            max_target_length=self.max_target_length or task.max_target_length,
            freeze=task.freeze if self.freeze is None else self.freeze,
            metric=self.metric or task.metric,
            beam=self.beam or task.search.beam,
            optimizer_settings=dataclasses.replace(
                optimizer,
                learning_rate=learning_rate or recipe.learning_rate,
                warmup_steps=recipe.warmup_steps if warmup is None else warmup,
            ),
        )
