"""Metrics by name: for the command, for validation during training, and for whoever imports them.

metric = build_metric("rougeL", "fr")
score = metric.score(["un titre"], [["un titre", "le titre"]])
score.value, score.signature
"""

from __future__ import annotations

from deltalm_ds.errors import UserError
from deltalm_ds.scoring.base import Metric
from deltalm_ds.scoring.corpus_metrics import (
    BleuTokenizer,
    build_bleu,
    build_character_bleu,
    build_chrf,
    build_ter,
)
from deltalm_ds.scoring.rouge import ROUGE_TYPES, MultiReference, Rouge, RougeTokenizer, rouge_tokenizer_of
from deltalm_ds.text.languages import ADVICE, is_language

METRICS = (
    *("bleu", "chrf", "ter", "rouge1", "rouge2", "rougeL", "rouge"),
    *("bleu4-characters", "rouge-characters"),
)

_NOT_HERE = {
    "meteor": "the METEOR 1.5 program in Java with its paraphrase tables, and a Java runtime",
    "bertscore": "the package bert-score and a downloaded model",
    "bleurt": "the package bleurt and a downloaded checkpoint",
    "comet": "the package unbabel-comet and a downloaded model",
}


def build_metric(
    name: str,
    language: str,
    *,
    bleu_tokenizer: BleuTokenizer | None = None,
    rouge_tokenizer: RougeTokenizer | None = None,
    stemmer: bool = False,
    multi_reference: MultiReference = "max",
) -> Metric:
    """One of METRICS for texts in a language; without tokenizers those that suit the language.

    rouge1, rouge2 and rougeL are one number each; rouge has all three, and rougeL as its value.
    bleu4-characters and rouge-characters have a tokenizer of their own.

    UserError for an unknown name or language, and for what cannot be computed here: it says what is needed.
    """
    demand_metric(name)
    if not is_language(language):
        raise UserError(f"{language!r} is no language; {ADVICE}")
    if name == "bleu":
        return build_bleu(name, language, bleu_tokenizer)
    if name == "bleu4-characters":
        return build_character_bleu(name)
    if name == "chrf":
        return build_chrf(name)
    if name == "ter":
        return build_ter(name)
    if name == "rouge-characters":
        return Rouge(name, ROUGE_TYPES, "characters", multi_reference=multi_reference, suffix="-characters")
    types = ROUGE_TYPES if name == "rouge" else (name,)
    return Rouge(name, types, rouge_tokenizer or rouge_tokenizer_of(language), stemmer, multi_reference)


def demand_metric(name: str) -> None:
    """UserError unless `name` is one of METRICS."""
    if name in _NOT_HERE:
        raise UserError(f"{name} cannot be computed here: it needs {_NOT_HERE[name]}; leave it out")
    if name not in METRICS:
        raise UserError(f"{name!r} is no metric: name one of {', '.join(METRICS)}")
