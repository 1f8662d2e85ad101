"""What a downstream task is: how its data are read, trained on, searched for and scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deltalm_ds.downstream.templates import Template

ENDINGS: Mapping[str, str] = {"x": "source", "y": "target", "src": "source", "tgt": "target"}
"""Endings of line-aligned files that stand for a field of another name."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is fine-tuned: the published recipe where nothing else is said [model.md]."""

    learning_rate: float = 1e-4
    """Peak of Adam's rate, reached after the warm-up and then falling with the inverse square root."""
    initial_learning_rate: float = 1e-7
    """Where the warm-up begins."""
    warmup_steps: int = 4_000
    """Optimizer steps of the linear warm-up."""
    adam_betas: tuple[float, float] = (0.9, 0.98)
    """Adam's decay rates of the two moments."""
    batch_tokens: int = 4096 * 128
    """Tokens of one optimizer step over all processes, of sources or of targets, whichever are more."""
    label_smoothing: float = 0.1
    """Share of the target's probability that is spread over the vocabulary."""
    dropout: float = 0.1
    """Of the hidden states; not part of what was published."""
    steps: int = 100_000
    """Optimizer steps at most; not part of what was published."""
    patience: int = 10
    """Training ends after so many validations without a better score; not part of what was published."""


PUBLISHED = Recipe()
"""For data of hundreds of thousands of examples or more."""
SMALL = Recipe(batch_tokens=4096 * 2, steps=20_000)
"""The published one for small data: the best of the scores at every epoch's end is kept."""


@dataclass(frozen=True, kw_only=True)
class SearchDefaults:
    """How outputs are searched for where the user says nothing."""

    beam: int = 5
    """Hypotheses that are kept; published."""
    length_penalty: float = 1.0
    """The exponent of the length by which scores are divided; published."""
    max_length_a: float = 0.0
    """An output has at most a · (tokens of the source, `</s>` counted) + b tokens: a."""
    max_length_b: int = 200
    """The same: b."""
    min_length: int = 1
    """Least tokens of an output, `</s>` not counted."""
    no_repeat_ngram: int = 0
    """No sequence of so many tokens comes twice in an output; 0: any may."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A downstream task. It holds no code: docs/adding-a-task.md adds one in one small file."""

    name: str
    """What `--task` calls it."""
    summary: str
    """One line of help: what goes in and what comes out."""
    source_template: str = "{source}"
    """What the model reads, made from the fields of a row."""
    target_template: str = "{target}"
    """What it should write, likewise; a field with several texts makes several targets."""
    endings: Mapping[str, str] = field(default_factory=lambda: ENDINGS)
    """Endings of line-aligned files that stand for a field of another name."""
    same_language: bool = False
    """Whether sources and targets are of one language, so that one tells the other."""
    default_source_language: str | None = None
    """Language of sources where neither data nor user say it."""
    language_tags: bool = False
    """Whether sources begin with a tag of the target language, such as __de__: needed where one model is
    asked for several languages and nothing else in the source tells which."""
    metric: str = "rouge"
    """The score by which the best model is chosen."""
    other_metrics: tuple[str, ...] = ()
    """Scores that are reported beside it."""
    max_source_length: int = 512
    """Tokens of a source, what is over is cut off; published."""
    max_target_length: int = 512
    """The same of targets."""
    search: SearchDefaults = SearchDefaults()
    """How outputs are searched for."""
    recipe: Recipe = PUBLISHED
    """How a model is fine-tuned on much data."""
    small_recipe: Recipe = SMALL
    """How a model is fine-tuned on little."""
    freeze: tuple[str, ...] = ()
    """Shell patterns ("decoder.*") of names of parameters that fine-tuning leaves as they are."""
    restrict_output_to_language: bool = False
    """Whether outputs are made only of pieces that text of the target language has."""

    def __post_init__(self) -> None:
        for template in (self.source_template, self.target_template):
            Template(template)
