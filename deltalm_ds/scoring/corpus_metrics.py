"""BLEU, chrF++ and TER by sacrebleu."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import langcodes
import numpy as np
from sacrebleu.metrics.base import Metric as SacrebleuMetric
from sacrebleu.metrics.bleu import BLEU, BLEUScore
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
from sacrebleu.utils import SACREBLEU_DIR

from deltalm_ds.errors import UserError
from deltalm_ds.scoring.base import Metric, Statistics
from deltalm_ds.text.languages import is_written_with_spaces

BleuTokenizer = Literal["13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none", "flores101", "flores200"]

_PACKAGES = {"ja-mecab": "sacrebleu[ja]", "ko-mecab": "sacrebleu[ko]"}


@dataclass(frozen=True)
class CorpusMetric(Metric):
    """A metric of sacrebleu's: its counts are summed over the corpus."""

    metric: SacrebleuMetric
    """With all its options."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def higher_is_better(self) -> bool:
        return not isinstance(self.metric, TER)

    def _statistics(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        # None where an example has fewer references: "" would be a reference that every short text is near.
        streams = list(zip_longest(*references))
        rows = self.metric._extract_corpus_statistics(hypotheses, streams)
        return Statistics(np.array(rows, dtype=np.float64), str(self.metric.get_signature()))

    def parts(self, total: np.ndarray) -> dict[str, float]:
        score = self.metric._compute_score_from_stats(total.tolist())
        parts = {self.name: float(score.score)}
        if isinstance(score, BLEUScore):
            parts |= {f"precision{n}": float(share) for n, share in enumerate(score.precisions, start=1)}
            parts |= {"brevity_penalty": float(score.bp), "length_ratio": float(score.ratio)}
        return parts


def build_bleu(name: str, language: str, tokenizer: BleuTokenizer | None) -> CorpusMetric:
    """BLEU as sacrebleu's command computes it, smoothed; without `tokenizer` by the language's.

    UserError where the tokenizer needs what is not installed, or the language has none.
    """
    chosen = tokenizer or bleu_tokenizer_of(language)
    if chosen in SPM_MODELS:
        _demand_model(chosen)
    try:
        return CorpusMetric(name, BLEU(tokenize=chosen))
    except RuntimeError:  # what sacrebleu raises where MeCab is not installed
        raise UserError(
            f"BLEU's tokenizer {chosen} needs a package: pip install '{_PACKAGES[chosen]}', "
            "or choose --bleu-tokenizer char"
        ) from None


def build_character_bleu(name: str) -> CorpusMetric:
    """BLEU-4 over characters without smoothing, white space left out."""
    return CorpusMetric(name, BLEU(tokenize="char", smooth_method="none", force=True))


def build_chrf(name: str) -> CorpusMetric:
    """chrF++, that is with words and pairs of words, recall twice as heavy as precision."""
    return CorpusMetric(name, CHRF(word_order=2))


def build_ter(name: str) -> CorpusMetric:
    """Translation edit rate, as Tercom without normalisation."""
    return CorpusMetric(name, TER())


def bleu_tokenizer_of(language: str) -> BleuTokenizer:
    """The tokenizer that BLEU is published with; UserError for languages that none can part into words."""
    if is_written_with_spaces(language):
        return "ko-mecab" if _family(language) == "ko" else "13a"
    if (family := _family(language)) in ("zh", "ja"):
        return "zh" if family == "zh" else "ja-mecab"
    raise UserError(
        f"BLEU has no tokenizer for {language}, which is written without spaces: "
        "choose --bleu-tokenizer char, or chrf instead of bleu"
    )


def _family(language: str) -> str:
    return langcodes.Language.get(language).prefer_macrolanguage().language or ""


def _demand_model(tokenizer: str) -> None:
    """sacrebleu would fetch the model unasked."""
    url = SPM_MODELS[tokenizer]["url"]
    path = Path(SACREBLEU_DIR) / "models" / Path(url).name
    if not path.exists():
        raise UserError(f"BLEU's tokenizer {tokenizer} needs the file {url} as {path}: put it there")
