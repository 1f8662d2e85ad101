"""The tokenizer of a corpus: a given SentencePiece model, or one trained on a sample of the text."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from deltalm_ds.errors import UserError
from deltalm_ds.files import write_bytes_atomically
from deltalm_ds.preparing.encoding import digest_of
from deltalm_ds.preparing.stages import Stage, digest
from deltalm_ds.processes import Workers
from deltalm_ds.ranks import Ranks
from deltalm_ds.text.pieces import Part, Piece
from deltalm_ds.text.readers import DamagePolicy, Documents, parse
from deltalm_ds.text.tokenizer import train_tokenizer


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a tokenizer is trained."""

    vocabulary_size: int
    """Pieces."""
    character_coverage: float
    """Share of the text's characters that it must know."""
    sample_bytes: int
    """Text to train on, at most."""
    language_exponent: float
    """A language's share of the sample is proportional to its bytes to this power."""
    seed: int
    """Of the sample."""


def survey(
    folder: Path, parts: Sequence[Part], damaged: DamagePolicy, ranks: Ranks, workers: Workers
) -> Stage:
    """Read all text once and count it; the stage's results are those of `survey_piece`."""
    stage = Stage("reading", folder / f"survey-{damaged}", parts)
    stage.run(partial(survey_piece, damaged=damaged), ranks, workers)
    return stage


def survey_piece(piece: Piece, _folder: Path, damaged: DamagePolicy) -> dict[str, object]:
    """A hash of a piece's bytes, and the UTF-8 bytes of its text by language; of held-out inputs none."""
    piece = replace(piece, contents=piece.read())
    language_bytes: Counter[str] = Counter()
    for documents in parse(piece, damaged).documents:
        for language, lines in _by_language(documents):
            language_bytes[language] += len("".join(lines).encode("utf-8"))
    if piece.input.held_out:
        language_bytes.clear()
    return {"number": piece.number, "sha256": digest_of(piece), "language_bytes": language_bytes}


def _by_language(documents: Documents) -> Iterator[tuple[str, list[str]]]:
    """The lines of each language: both sides of pairs, or all."""
    count = len(documents.languages)
    for index, language in enumerate(documents.languages):
        yield language, documents.lines[index::count]


def sampling_rates(language_bytes: Mapping[str, int], exponent: float, max_bytes: int) -> dict[str, float]:
    """How often to take each language's lines for a language's share to be proportional to bytes^exponent.

    The sample has as many bytes as there are, `max_bytes` at most; so small languages have rates above one,
    their lines repeated, and large ones below.
    """
    total = min(sum(language_bytes.values()), max_bytes)
    shares = {language: count**exponent for language, count in language_bytes.items()}
    scale = total / sum(shares.values())
    return {language: scale * share / language_bytes[language] for language, share in shares.items()}


def sample_piece(
    piece: Piece, folder: Path, rates: Mapping[str, float], seed: int, damaged: DamagePolicy
) -> None:
    """Write a piece's lines, each as often as its language's rate says, into a JSON file."""
    generator = random.Random(f"{seed} {piece.input.name} {piece.input.ordinal} {piece.number}")
    sample = []
    for documents in parse(piece, damaged).documents:
        for language, lines in _by_language(documents):
            copies, chance = divmod(rates[language], 1)
            for line in lines:
                sample += [line] * (int(copies) + (generator.random() < chance))
    write_bytes_atomically(_sample_file(folder, piece.number), json.dumps(sample).encode())


def _sample_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.lines"


def trained_tokenizer(
    folder: Path,
    parts: Sequence[Part],
    surveyed: Stage,
    settings: TrainingSettings,
    damaged: DamagePolicy,
    ranks: Ranks,
    workers: Workers,
    say: Callable[[str], object],
) -> Path:
    """The model in `folder` that is trained on a sample of the text, if it is not there already.

    UserError where the text does not fit the settings, or all of it is held out.
    """
    language_bytes: Counter[str] = Counter()
    for part in parts:
        for result in surveyed.results(part):
            language_bytes.update(result["language_bytes"])
    if not language_bytes:
        raise UserError("all inputs are for validation (their names say valid or dev): add text to train on")
    digests = [result["sha256"] for part in parts for result in surveyed.results(part)]
    path = folder / f"tokenizer-{digest([digests, asdict(settings), damaged])}.model"
    if ranks.from_first(path.is_file):
        return path
    rates = sampling_rates(language_bytes, settings.language_exponent, settings.sample_bytes)
    training_parts = [part for part in parts if not part.input.held_out]
    stage = Stage(
        "tokenizer sample", folder / f"sample-{digest([rates, settings.seed, damaged])}", training_parts
    )
    started = time.monotonic()
    sample_mb = min(sum(language_bytes.values()), settings.sample_bytes) / 1e6
    say(
        f"tokenizer: training {settings.vocabulary_size:,} pieces on {sample_mb:.1f} MB of text in "
        f"{len(rates)} languages"
    )
    stage.run(partial(sample_piece, rates=rates, seed=settings.seed, damaged=damaged), ranks, workers)

    def train() -> None:
        lines = _sampled_lines(stage)
        write_bytes_atomically(
            path, train_tokenizer(lines, settings.vocabulary_size, settings.character_coverage)
        )

    ranks.from_first(train)
    say(f"tokenizer: trained in {time.monotonic() - started:.0f} s")
    return path


def _sampled_lines(stage: Stage) -> Iterator[str]:
    for part in stage.parts:
        folder = stage.folder_of(part)
        for path in sorted(folder.glob("*.lines"), key=lambda path: int(path.stem)):
            yield from json.loads(path.read_bytes())
