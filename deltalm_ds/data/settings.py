"""What training samples are made of, as options."""

from __future__ import annotations

from dataclasses import dataclass

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.masked import TokenMasking
from deltalm_ds.data.objectives import CorruptionForm, SpanCorruption
from deltalm_ds.data.schedule import Change, Mixture, parse_change, parse_weight
from deltalm_ds.data.tasks import OF_AN_ENCODER, MonolingualObjective, PairObjective
from deltalm_ds.errors import UserError

SHORTEST_SOURCE = 16


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What training samples are made of. Impossible values are a UserError at construction."""

    max_source_length: int = 512
    """Most tokens the encoder reads. In the group's form text is cut into windows of this length, in T5's
    into windows whose corrupted source has it."""
    max_target_length: int = 512
    """Most tokens the decoder reads."""
    monolingual_objective: MonolingualObjective = "span-corruption"
    """What is learnt from monolingual text. span-corruption: to say the spans that sentinels stand for. mlm
    (XLM's masked language modelling): to fill `<mask>` in its place, which trains an encoder alone, for
    DeltaLM to start from; it goes with tlm on pairs."""
    pair_objective: PairObjective = "translation-span-corruption"
    """What is learnt from sentence pairs. translation-span-corruption: spans of both sides, rows of whole
    pairs at a time. translation: one side from the other. one-side: spans of one side, drawn for each pair,
    the other left whole. tlm: mlm over rows of whole pairs, for an encoder alone; it goes with mlm."""
    corruption_form: CorruptionForm = "group"
    """Span corruption as in the code of DeltaLM's authors (group) or as in T5's (t5)."""
    monolingual_density: float = 0.15
    """Share of the tokens masked in monolingual text."""
    translation_density: float = 0.5
    """Share of the tokens masked in sentence pairs, over the concatenation of both sides."""
    mean_span_length: float = 3.0
    """Masked tokens per span, on average."""
    masked_share: float = 0.15
    """Share of the pieces that mlm and tlm predict."""
    language_exponent: float = 0.3
    """Languages, and language pairs, are drawn in proportion to tokens to this power: 1 is as they are, 0 all
    alike."""
    monolingual_share: float = 0.8
    """Share of monolingual samples where there are sentence pairs too."""
    source_weights: tuple[str, ...] = ()
    """Factors of the shares of languages and pairs, beside those of a recipe: fr=2 en-fr=0.5; 0 leaves one
    out."""
    max_epochs: float | None = None
    """Most times that any text is seen over the run; what a source may not have goes to the others of its
    kind."""
    mixture_changes: tuple[str, ...] = ()
    """Changes in the course of the run, from a step on: 400000:language-exponent=0.7
    400000:monolingual-share=0.5 400000:fr=2. They take effect with the next block of 65,536 samples."""
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
        if self.max_epochs is not None and not self.max_epochs > 0:
            raise UserError(f"max_epochs must be above 0, not {self.max_epochs}")
        _ = self.mixture, self.changes
        if self.num_loader_workers < 0:
            raise UserError(f"num_loader_workers must be 0 or more, not {self.num_loader_workers}")
        _ = self.monolingual_corruption, self.pair_corruption, self.masking  # they check their own values

    @property
    def mixture(self) -> Mixture:
        """What the run begins with."""
        weights = dict(map(parse_weight, self.source_weights))
        return Mixture(self.language_exponent, self.monolingual_share, weights)

    @property
    def changes(self) -> list[Change]:
        """What changes in the course of it."""
        return [parse_change(text) for text in self.mixture_changes]

    @property
    def monolingual_corruption(self) -> SpanCorruption:
        """Span corruption as monolingual text gets it."""
        return SpanCorruption(self.monolingual_density, self.mean_span_length, self.corruption_form)

    @property
    def pair_corruption(self) -> SpanCorruption:
        """Span corruption as sentence pairs, or single sides, get it."""
        return SpanCorruption(self.translation_density, self.mean_span_length, self.corruption_form)

    @property
    def masking(self) -> TokenMasking:
        """The masking of mlm and tlm."""
        return TokenMasking(self.masked_share)


def trains_encoder(corpus: Corpus, settings: DataSettings) -> bool:
    """Whether the objectives of the corpus's kinds of source train an encoder alone.

    UserError where the objective of one kind does and that of the other does not.
    """
    kinds = {source.kind for source in (*corpus.sources("train"), *corpus.sources("valid"))}
    mono, pairs = settings.monolingual_objective, settings.pair_objective
    answers = {(mono if kind == "monolingual" else pairs) in OF_AN_ENCODER for kind in kinds}
    if len(answers) > 1:
        raise UserError(
            f"{corpus.path} has monolingual text and pairs, and of --monolingual-objective {mono} and "
            f"--pair-objective {pairs} one trains an encoder alone, the other an encoder with a decoder: "
            "choose mlm with tlm, or neither"
        )
    return answers == {True}
