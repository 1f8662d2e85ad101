"""The options of `score`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from deltalm_ds.errors import UserError
from deltalm_ds.scoring.corpus_metrics import BleuTokenizer
from deltalm_ds.scoring.metrics import demand_metric
from deltalm_ds.scoring.resampling import PairedTest
from deltalm_ds.scoring.rouge import MultiReference, RougeTokenizer
from deltalm_ds.text.languages import ADVICE, is_language

_OF_ONE_DIRECTION = ("hypotheses", "references", "language", "sources", "baseline", "groups", "seen")
_FEWEST_RESAMPLES = 40


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """Score outputs, line by line, against references: a table with signatures, and JSON."""

    hypotheses: tyro.conf.Positional[Path | None] = None
    """The outputs, one a line."""
    references: tuple[Path, ...] = ()
    """One or more files of references; a blank line is no reference for that line's example."""
    language: str | None = None
    """Code of the language that outputs should be in."""
    manifest: Path | None = None
    """Instead of the files of one direction, a YAML or JSON file that lists those of many."""
    metrics: tuple[str, ...] = ("bleu", "chrf")
    """Any of bleu, chrf, ter, rouge1, rouge2, rougeL, rouge, bleu4-characters, rouge-characters."""
    sources: Path | None = None
    """What outputs were made from: those that merely copy it are counted."""
    baseline: Path | None = None
    """Outputs of another system, to test whether the difference is chance."""
    groups: Path | None = None
    """A group of each example, such as its category: scores are also shown by group."""
    seen: Path | None = None
    """Names of the groups that training has seen, one a line: both kinds are also scored apart."""
    bleu_tokenizer: BleuTokenizer | None = None
    """If not the one that the language has at sacrebleu: zh, ja-mecab, ko-mecab, else 13a."""
    rouge_tokenizer: RougeTokenizer | None = None
    """comparable: rouge_score's own, as published, which cuts words at accents; words: Unicode words;
    characters. If not given, comparable for Latin letters, characters for languages written without
    spaces, else words."""
    stemmer: bool = False
    """Cut words by Porter's English stemmer before ROUGE compares them."""
    multi_reference: MultiReference = "max"
    """What ROUGE makes of several references: the best, the mean, or the mean of the best of all but one."""
    confidence: bool = False
    """Show intervals of 95 % by bootstrap."""
    paired_test: PairedTest = "randomisation"
    """How the difference from the baseline is tested: swapping outputs, or drawing examples again."""
    resamples: int = 1000
    """Resamples of an interval and of a test."""
    seed: int = 12345
    """Of the draws; the default is sacrebleu's."""
    language_samples: tuple[str, ...] = ()
    """LANGUAGE=FILE: text in the languages that outputs may be in, to tell those of one script apart."""
    json: Path | None = None
    """File to write all numbers to; - prints them in place of the table."""

    def __post_init__(self) -> None:
        given = [name for name in _OF_ONE_DIRECTION if getattr(self, name)]
        if self.manifest is not None and given:
            raise UserError(f"the manifest names the files of all directions: leave out {_option(given[0])}")
        if self.manifest is None:
            for name in ("hypotheses", "references", "language"):
                if name not in given:
                    raise UserError(f"{_option(name)} is missing: give it, or a --manifest of directions")
        if self.language is not None and not is_language(self.language):
            raise UserError(f"--language {self.language!r} is none; {ADVICE}")
        if self.seen is not None and self.groups is None:
            raise UserError("--seen says which of the --groups training has seen: name them too")
        if not self.metrics:
            raise UserError("--metrics is empty: name one at least")
        for name in self.metrics:
            demand_metric(name)
            if self.metrics.count(name) > 1:
                raise UserError(f"--metrics has {name} twice: name it once")
        if self.resamples < _FEWEST_RESAMPLES:
            raise UserError(f"--resamples must be {_FEWEST_RESAMPLES} or more, not {self.resamples}")
        if self.json is not None and not self.prints_json:
            if self.json.exists():
                raise UserError(f"--json {self.json} exists: name another file or remove it")
            if not self.json.parent.is_dir():
                raise UserError(f"--json {self.json}: {self.json.parent} is no folder: make it first")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed must lie in [0, 2^32), not {self.seed}")

    @property
    def prints_json(self) -> bool:
        """Whether stdout is for JSON."""
        return self.json == Path("-")


def _option(name: str) -> str:
    return "HYPOTHESES" if name == "hypotheses" else f"--{name}"
