"""Lines of text to a model's outputs: encoding, batches, search, and text again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from deltalm_ds.decoding.allowed import ordinary_tokens
from deltalm_ds.decoding.batching import batches_by_tokens
from deltalm_ds.decoding.forced import score_targets
from deltalm_ds.decoding.forms import ScoredText, one_line
from deltalm_ds.decoding.hypotheses import Hypothesis
from deltalm_ds.decoding.remarks import Counts, ends_in_repetition, odd_lengths
from deltalm_ds.decoding.search import Generator
from deltalm_ds.decoding.settings import SearchSettings
from deltalm_ds.downstream.encoding import TextEncoder
from deltalm_ds.downstream.splitting import split_sentences
from deltalm_ds.model import DeltaLM
from deltalm_ds.text.languages import is_language, is_written_with_spaces
from deltalm_ds.text.scripts import scripts_of, share_in_scripts
from deltalm_ds.text.vocabulary import Vocabulary

_LEAST_IN_SCRIPT = 0.5
# Later sentences of a line get numbers beyond all lines', so that splitting leaves the others' draws alone.
_NUMBERS_BETWEEN_SENTENCES = 1 << 40


class Outputs(NamedTuple):
    """What became of some lines."""

    ranked: list[list[ScoredText]]
    """For each line its outputs, best first, at least one."""
    counts: Counts
    """What there was, and what looks wrong."""


@dataclass(frozen=True)
class _Sentence:
    """What the model is asked for."""

    line: int
    """Its line's place among the lines."""
    number: int
    """What names the draws of sampling."""
    source: NDArray[np.int32]
    """Its tokens [tokens]."""


class TextGenerator:
    """Writes text for text. Batches and the order of lines change no result.

    Args:
        model: a DeltaLM; its weights are taken as they are at the first `generate`.
        encoder: makes its sources and targets.
        search: how outputs are searched for.
        batch_tokens: most tokens of the sources that are decoded together, padding counted.
        allowed: bool [vocabulary_rows], what outputs are made of; by default all `ordinary_tokens`.
        first_tokens: what every output begins with.
        is_split: whether sentences of a line are generated one by one and joined again.
    """

    def __init__(
        self,
        model: DeltaLM,
        encoder: TextEncoder,
        search: SearchSettings,
        *,
        batch_tokens: int = 4096,
        allowed: NDArray[np.bool_] | None = None,
        first_tokens: Sequence[int] = (),
        is_split: bool = False,
    ) -> None:
        self._model, self._encoder, self._search = model, encoder, search
        self._vocabulary = encoder.tokenizer.vocabulary
        self._batch_tokens = batch_tokens
        if allowed is None:
            allowed = ordinary_tokens(self._vocabulary, model.config.vocabulary_rows)
        self._allowed = torch.from_numpy(allowed)
        self._first_tokens = list(first_tokens)
        self._is_split = is_split

    def generate(self, texts: Sequence[str], languages: Sequence[str], first_line: int = 0) -> Outputs:
        """The outputs of each line, at most `num_best`; one that is empty for a line without text.

        `languages` are those to write; `first_line` lines are before these in the whole text. UserError for a
        language that the model does not know.
        """
        counts = Counts(num_lines=len(texts))
        sentences = self._sentences(texts, languages, first_line, counts)
        found = self._searched(sentences)
        self._remark(sentences, found, first_line, counts)
        of_line: list[list[list[Hypothesis]]] = [[] for _ in texts]
        for sentence, hypotheses in zip(sentences, found, strict=True):
            of_line[sentence.line].append(hypotheses)
        ranked = [self._line(parts, language) for parts, language in zip(of_line, languages, strict=True)]
        for number, (parts, outputs, language) in enumerate(
            zip(of_line, ranked, languages, strict=True), first_line + 1
        ):
            counts.num_lines_with_text += bool(parts)
            if parts and not outputs[0].text:
                counts.mark("empty", number)
            counts.num_in_script += is_in_script(outputs[0].text, language)
        return Outputs(ranked, counts)

    def score(
        self, texts: Sequence[str], targets: Sequence[str], languages: Sequence[str], first_line: int = 0
    ) -> Outputs:
        """The scores of given targets, one for each line; targets that are too long are cut as well."""
        counts = Counts(num_lines=len(texts), num_sentences=len(texts))
        sources, cut = self._encoder.sources(texts, languages)
        labels, cut_targets = self._encoder.targets(targets)
        for kind, places in (("cut", cut), ("cut_target", cut_targets)):
            for place in np.flatnonzero(places).tolist():
                counts.mark(kind, first_line + place + 1)
        scores: list[list[float]] = [[] for _ in texts]
        lengths = [len(source) + len(label) for source, label in zip(sources, labels, strict=True)]
        for batch in batches_by_tokens(lengths, self._batch_tokens):
            batch_scores = score_targets(
                self._model,
                [sources[place].tolist() for place in batch],
                [labels[place].tolist() for place in batch],
            )
            for place, token_scores in zip(batch, batch_scores, strict=True):
                scores[place] = token_scores
        counts.num_tokens = sum(map(len, labels))
        scored = zip(targets, scores, strict=True)
        return Outputs(
            [[self._scored(one_line(text), token_scores)] for text, token_scores in scored], counts
        )

    def _sentences(
        self, texts: Sequence[str], languages: Sequence[str], first_line: int, counts: Counts
    ) -> list[_Sentence]:
        parts = [_sentences_of(text) if self._is_split else [text] for text in texts]
        lines = [line for line, split in enumerate(parts) for _ in split]
        sources, cut = self._encoder.sources(
            [part for split in parts for part in split], [languages[line] for line in lines]
        )
        sentences = []
        places = [place for split in parts for place in range(len(split))]
        for line, place, source, is_cut in zip(lines, places, sources, cut.tolist(), strict=True):
            if not self._has_text(source):
                continue
            number = first_line + line + place * _NUMBERS_BETWEEN_SENTENCES
            sentences.append(_Sentence(line, number, source))
            if is_cut:
                counts.mark("cut", first_line + line + 1)
        counts.num_sentences = len(sentences)
        return sentences

    @cached_property
    def _generator(self) -> Generator:
        return Generator(self._model, self._search, allowed=self._allowed)  # scoring does without

    def _searched(self, sentences: Sequence[_Sentence]) -> list[list[Hypothesis]]:
        found: list[list[Hypothesis]] = [[] for _ in sentences]
        for batch in batches_by_tokens([len(sentence.source) for sentence in sentences], self._batch_tokens):
            results = self._generator.generate(
                [sentences[place].source.tolist() for place in batch],
                numbers=[sentences[place].number for place in batch],
                prefixes=[self._first_tokens] * len(batch) if self._first_tokens else None,
            )
            for place, hypotheses in zip(batch, results, strict=True):
                found[place] = hypotheses
        return found

    def _line(self, parts: Sequence[Sequence[Hypothesis]], language: str) -> list[ScoredText]:
        """The outputs of a line from those of its sentences; one without text where there is none."""
        if len(parts) == 1 and parts[0]:
            return [
                ScoredText(self._text(found), found.score, tuple(found.token_scores)) for found in parts[0]
            ]
        best = [found[0] for found in parts if found]
        space = " " if is_written_with_spaces(language) else ""
        text = space.join(filter(None, map(self._text, best)))
        return [self._scored(text, [score for one in best for score in one.token_scores])]

    def _text(self, hypothesis: Hypothesis) -> str:
        pieces = [token for token in hypothesis.tokens if self._vocabulary.is_piece(token)]
        return one_line(self._encoder.tokenizer.decode(pieces)).strip()

    def _scored(self, text: str, token_scores: Sequence[float]) -> ScoredText:
        length = max(1, len(token_scores))
        score = sum(token_scores) / length**self._search.length_penalty
        return ScoredText(text, score, tuple(token_scores))

    def _has_text(self, source: NDArray[np.int32]) -> bool:
        is_text = (source >= Vocabulary.UNK) & (source <= self._vocabulary.num_pieces)
        return bool(is_text.any())

    def _remark(
        self,
        sentences: Sequence[_Sentence],
        found: Sequence[Sequence[Hypothesis]],
        first_line: int,
        counts: Counts,
    ) -> None:
        lengths = []
        for sentence, hypotheses in zip(sentences, found, strict=True):
            tokens = hypotheses[0].tokens if hypotheses else []
            line = first_line + sentence.line + 1
            lengths.append(len(tokens))
            if ends_in_repetition(tokens[:-1]):
                counts.mark("repeated", line)
            if len(tokens) > self._generator.greatest_length(len(sentence.source)):
                counts.mark("limit", line)
        counts.num_tokens = sum(lengths)
        for place in odd_lengths([len(sentence.source) for sentence in sentences], lengths):
            counts.mark("odd_length", first_line + sentences[place].line + 1)


def _sentences_of(text: str) -> list[str]:
    return [sentence.text for sentence in split_sentences(text) if sentence.text]


def is_in_script(text: str, language: str) -> bool:
    """Whether there is text and at least half of its letters are of the language's scripts."""
    scripts = scripts_of(language) if is_language(language) else ()
    return bool(text and scripts) and share_in_scripts(text, scripts) >= _LEAST_IN_SCRIPT
