"""ROUGE-1, -2 and -L by rouge_score, with a choice of tokenizers and of what several references mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import regex

from deltalm_ds.errors import UserError
from deltalm_ds.scoring.base import Metric, Statistics, num_references
from deltalm_ds.text.languages import is_written_with_spaces
from deltalm_ds.text.scripts import scripts_of

RougeTokenizer = Literal["comparable", "words", "characters"]
MultiReference = Literal["max", "mean", "jackknife"]

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")

_WORD = regex.compile(r"[\p{L}\p{M}\p{N}_]+")
_SHORTEST_STEMMED = 4


@dataclass(frozen=True)
class Rouge(Metric):
    """The mean F1 of the examples."""

    types: tuple[str, ...]
    """Those of ROUGE_TYPES that are wanted."""
    tokenizer: RougeTokenizer
    """comparable: rouge_score's own, which knows no letters but a to z; words: runs of letters, marks and
    digits; characters: all but white space."""
    stemmer: bool = False
    """Whether Porter's stemmer, made for English, cuts words."""
    multi_reference: MultiReference = "max"
    """Of several references the best, the mean, or the mean of the best of all but one."""
    suffix: str = ""
    """Put behind the names of parts, to tell two ROUGE metrics apart."""

    def __post_init__(self) -> None:
        if self.stemmer and self.tokenizer == "characters":
            raise UserError("characters have no stems: leave out --stemmer or choose another ROUGE tokenizer")

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(name + self.suffix for name in self.types)

    @property
    def signature(self) -> str:
        """All but the number of references."""
        return "|".join(
            (
                f"multi:{self.multi_reference}",
                f"tok:{self.tokenizer}",
                f"stem:{'porter' if self.stemmer else 'no'}",
                "case:lc",
                f"version:rouge-score-{version('rouge-score')}",
            )
        )

    def _statistics(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        from rouge_score.rouge_scorer import RougeScorer  # takes a moment to import

        scorer = RougeScorer(self.types, tokenizer=_build_tokenizer(self.tokenizer, self.stemmer))
        rows = np.ones((len(hypotheses), len(self.types) + 1))  # the last counts examples
        for row, hypothesis, texts in zip(rows, hypotheses, references, strict=True):
            scores = [scorer.score(text, hypothesis) for text in texts]
            f1 = np.array([[score[name].fmeasure for name in self.types] for score in scores])
            row[:-1] = self._of_all_references(f1)
        return Statistics(rows, f"nrefs:{num_references(references)}|{self.signature}")

    def _of_all_references(self, f1: np.ndarray) -> np.ndarray:
        """From F1 against each reference [references, types] the example's [types]."""
        if self.multi_reference == "mean":
            return f1.mean(axis=0)
        if self.multi_reference == "max" or len(f1) == 1:
            return f1.max(axis=0)
        return np.mean([np.delete(f1, left_out, axis=0).max(axis=0) for left_out in range(len(f1))], axis=0)

    def parts(self, total: np.ndarray) -> dict[str, float]:
        return dict(zip(self.columns, (100 * total[:-1] / total[-1]).tolist(), strict=True))


def rouge_tokenizer_of(language: str) -> RougeTokenizer:
    """comparable where letters are Latin, else words, or characters where no spaces part them."""
    if not is_written_with_spaces(language):
        return "characters"
    return "comparable" if scripts_of(language) in ((), ("Latn",)) else "words"


def _build_tokenizer(name: RougeTokenizer, stemmer: bool) -> Any:
    """What has a method `tokenize`, as rouge_score wants it."""
    from rouge_score.tokenizers import DefaultTokenizer

    if name == "comparable":
        return DefaultTokenizer(use_stemmer=stemmer)
    return _Words(stemmer) if name == "words" else _Characters()


class _Words:
    def __init__(self, stemmer: bool) -> None:
        from rouge_score.tokenizers import porter  # nltk's, which its own tokenizer uses

        self._stem = lru_cache(maxsize=1 << 16)(porter.PorterStemmer().stem) if stemmer else None

    def tokenize(self, text: str) -> list[str]:
        """Runs of letters, marks and digits, in lower case; stems of long ones, as rouge_score has it."""
        words = _WORD.findall(text.lower())
        if self._stem is None:
            return words
        return [self._stem(word) if len(word) >= _SHORTEST_STEMMED else word for word in words]


class _Characters:
    def tokenize(self, text: str) -> list[str]:
        """All but white space, in lower case."""
        return list("".join(text.lower().split()))
