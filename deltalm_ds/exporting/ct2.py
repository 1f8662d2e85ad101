"""Folders for CTranslate2, and how far they are from the model that they were made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ctranslate2
import torch

from deltalm_ds.decoding.forced import score_targets
from deltalm_ds.decoding.search import Generator
from deltalm_ds.decoding.settings import SearchSettings
from deltalm_ds.downstream.encoding import TextEncoder
from deltalm_ds.errors import UserError
from deltalm_ds.exporting.ct2_spec import build_spec
from deltalm_ds.exporting.model import ExportModel, Quantization
from deltalm_ds.exporting.targets import new_folder
from deltalm_ds.exporting.token_names import token_names
from deltalm_ds.files import write_bytes_atomically
from deltalm_ds.text.vocabulary import Vocabulary
from deltalm_ds.weights.description import TOKENIZER_FILE

_MOST_TARGET_TOKENS = 100
_BATCH = 32


@dataclass(frozen=True)
class Difference:
    """An exported model against ours, on the same sources."""

    log_probability: float
    """The largest error of a token's log-probability, in nats."""
    num_tokens: int
    """Tokens that were compared, those of our greedy outputs."""
    num_identical: int
    """Greedy outputs that are the same, token by token."""
    num_outputs: int
    """All greedy outputs."""

    def __str__(self) -> str:
        return (
            f"against our own model: log-probabilities of {self.num_tokens:,} tokens within "
            f"{self.log_probability:.1e}; greedy outputs identical: {self.num_identical} of "
            f"{self.num_outputs} ({self.num_identical / self.num_outputs:.1%})"
        )


def write_ctranslate2(model: ExportModel, target: Path, quantization: Quantization) -> None:
    """Write `model` and its tokenizer to the new folder `target`.

    Tokens are those of `token_names`. The runtime adds none: a source is `<s> [tag] pieces </s>`.
    UserError where the model has no tokenizer, or where something is at `target`.
    """
    description = model.described()
    spec = build_spec(model)
    names = token_names(description, model.config.vocabulary_rows)
    spec.register_source_vocabulary(names)
    spec.register_target_vocabulary(names)
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = "<s>", "</s>", "<unk>"
    spec.config.decoder_start_token = "</s>"
    spec.validate()
    spec.optimize(quantization=quantization)
    with new_folder(target) as folder:
        spec.save(str(folder))
        write_bytes_atomically(folder / TOKENIZER_FILE, description.tokenizer.read_bytes())


def measure(model: ExportModel, folder: Path, sources: Sequence[Sequence[int]]) -> Difference:
    """Compare the CTranslate2 model in `folder` with `model`, on the CPU; sources are token ids."""
    names = token_names(model.described(), model.config.vocabulary_rows)
    translator = ctranslate2.Translator(
        str(folder), device="cpu", intra_threads=torch.get_num_threads(), inter_threads=1
    )
    limit = min(_MOST_TARGET_TOKENS, model.config.max_positions - 1)
    ours = model.build()
    generator = Generator(ours, SearchSettings(beam=1, max_length_b=limit))
    error, num_tokens, num_identical = 0.0, 0, 0
    for start in range(0, len(sources), _BATCH):
        batch = sources[start : start + _BATCH]
        named = [[names[token] for token in source] for source in batch]
        targets = [found[0].tokens for found in generator.generate(batch)]
        expected = score_targets(ours, batch, targets)
        texts = [[names[token] for token in target[:-1]] for target in targets]
        for scored, scores in zip(translator.score_batch(named, texts), expected, strict=True):
            error = max(
                error, *(abs(one - other) for one, other in zip(scored.log_probs, scores, strict=True))
            )
            num_tokens += len(scores)
        found = translator.translate_batch(
            named, beam_size=1, max_decoding_length=limit, suppress_sequences=[[names[Vocabulary.PAD]]]
        )
        num_identical += sum(result.hypotheses[0] == text for result, text in zip(found, texts, strict=True))
    return Difference(error, num_tokens, num_identical, len(sources))


def made_sources(model: ExportModel, num_sources: int = 64, seed: int = 1) -> list[list[int]]:
    """Sources of random pieces, for a model whose users gave no text to compare with."""
    vocabulary, task = model.described().vocabulary, model.described().task
    tags = [] if task is None else list(task.tags.values())
    generator = torch.Generator().manual_seed(seed)
    longest = min(24, model.config.max_positions - 3)
    sources = []
    for number in range(num_sources):
        length = 1 + number % longest
        pieces = torch.randint(
            Vocabulary.UNK + 1, vocabulary.num_pieces + 1, (length,), generator=generator
        ).tolist()
        tag = [tags[number % len(tags)]] if tags else []
        sources.append([Vocabulary.BOS, *tag, *pieces, Vocabulary.EOS])
    return sources


def text_sources(model: ExportModel, path: Path, language: str | None) -> list[list[int]]:
    """The lines of a text file as sources, to be written in `language`, by default the model's first.

    UserError for a file that cannot be read or has no text, and for a language that the model does not write.
    """
    description = model.described()
    tags = {} if description.task is None else description.task.tags
    if language is None and tags:
        language = next(iter(tags))
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--compare-on {path}: cannot be read as text ({error})") from error
    if not lines:
        raise UserError(f"--compare-on {path}: has no text")
    longest = model.config.max_positions
    encoder = TextEncoder(
        description.open_tokenizer(), tags, max_source_length=longest, max_target_length=longest
    )
    sources, _ = encoder.sources(lines, [language or ""] * len(lines))
    return [source.tolist() for source in sources]
