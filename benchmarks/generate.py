"""How fast text is generated from the same weights by us, by transformers and by CTranslate2.

    python benchmarks/generate.py
    python benchmarks/generate.py --model FOLDER --text FILE

See benchmarks/README.md.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import ctranslate2
import numpy as np
import report
import torch
import tyro
from transformers import AutoModelForSeq2SeqLM

from deltalm_ds.decoding.batching import batches_by_tokens
from deltalm_ds.decoding.model_folder import ModelFolder
from deltalm_ds.decoding.search import Generator
from deltalm_ds.decoding.settings import SearchSettings
from deltalm_ds.exporting.ct2 import write_ctranslate2
from deltalm_ds.exporting.hugging_face import write_hugging_face
from deltalm_ds.exporting.model import ExportModel, read_model
from deltalm_ds.exporting.token_names import token_names
from deltalm_ds.files import write_text_atomically
from deltalm_ds.model import DeltaLM, DeltaLMConfig
from deltalm_ds.text.tokenizer import train_tokenizer
from deltalm_ds.text.vocabulary import Vocabulary
from deltalm_ds.weights import Description, save_own

Tokens = list[list[int]]
Side = Callable[[Sequence[Sequence[int]]], Tokens]
"""Sources to outputs, both in the sources' order."""

OURS = "ours"
_MADE_PIECES = 30
_SHORTEST, _LONGEST = 6, 64


@dataclass(kw_only=True)
class Settings:
    """Compare tokens a second of beam search."""

    model: Path | None = None
    """A model folder. Default: random weights, whose outputs all have the greatest length."""
    preset: str = "base"
    """Sizes of the random model."""
    text: Path | None = None
    """Sources, a line each. Default: random tokens, 6 to 64 of them, most of them few."""
    target_language: str | None = None
    """The language to write, for a model that writes several."""
    sentences: int = 64
    """Sources, the first of the file."""
    beam: int = 5
    """Of all sides."""
    max_length: int = 40
    """Tokens of an output before `</s>`, at most."""
    batch_tokens: int = 1024
    """Tokens of sources that are decoded together, padding counted; all sides have the same batches."""
    rounds: int = 5
    """Timed turns of each side."""
    device: str = "cpu"
    """Or cuda."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """Numbers to compute in."""
    results: Path = Path(__file__).parent / "results"
    """Folder for generate-….md."""


def made_model(folder: Path, preset: str) -> Path:
    """A folder with random weights, and a tokenizer of few pieces, for the table alone costs time."""
    tokenizer = folder / "made.model"
    syllables = ["no", "sa", "te", "ki", "lu", "mo", "ba", "ne", "ta", "do"]
    words = [first + second for first in syllables for second in syllables]
    tokenizer.write_bytes(train_tokenizer([" ".join(words)] * 20, _MADE_PIECES, 1.0))
    torch.manual_seed(1)
    model = DeltaLM(DeltaLMConfig.preset(preset))
    save_own(model, folder / "model", Description(tokenizer=tokenizer, vocabulary=Vocabulary(_MADE_PIECES)))
    return folder / "model"


def sources_of(settings: Settings, folder: ModelFolder, config: DeltaLMConfig) -> Tokens:
    """Token ids of the sources."""
    if settings.text is None:
        draw = np.random.default_rng(1)
        lengths = np.clip(draw.lognormal(3, 0.5, settings.sentences), _SHORTEST, _LONGEST).astype(int)
        # Any piece's row of a large table, and not only of the few that the tokenizer knows.
        last = min(config.mask_id, config.first_sentinel_id) - 1
        return [[0, *draw.integers(4, last, length - 2).tolist(), 2] for length in lengths.tolist()]
    lines = settings.text.read_text(encoding="utf-8").splitlines()[: settings.sentences]
    language = folder.target_language(settings.target_language)
    encoded, _ = folder.encoder(config.max_positions).sources(lines, [language] * len(lines))
    return [source.tolist() for source in encoded]


def by_batches(settings: Settings, search: Callable[[Tokens], Tokens]) -> Side:
    """A side that is given batches of like lengths, the same for all."""

    def side(sources: Sequence[Sequence[int]]) -> Tokens:
        found: Tokens = [[] for _ in sources]
        for batch in batches_by_tokens(list(map(len, sources)), settings.batch_tokens):
            outputs = search([list(sources[place]) for place in batch])
            for place, output in zip(batch, outputs, strict=True):
                found[place] = output
        return found

    return side


def our_side(settings: Settings, folder: ModelFolder) -> Side:
    """This project's search."""
    model = folder.load(torch.device(settings.device), settings.dtype)
    search = SearchSettings(beam=settings.beam, max_length_b=settings.max_length)
    generator = Generator(model, search)
    return by_batches(settings, lambda batch: [found[0].tokens for found in generator.generate(batch)])


def transformers_side(settings: Settings, model: ExportModel, work: Path) -> Side:
    """transformers' `generate` on the exported folder."""
    write_hugging_face(model, work / "transformers")
    dtype = torch.bfloat16 if settings.dtype == "bf16" else torch.float32
    loaded: Any = AutoModelForSeq2SeqLM.from_pretrained(
        work / "transformers", trust_remote_code=True, dtype=dtype
    )
    loaded = loaded.to(settings.device).eval()

    def search(batch: Tokens) -> Tokens:
        longest = max(map(len, batch))
        padded = torch.tensor([[*source, *[Vocabulary.PAD] * (longest - len(source))] for source in batch])
        padded = padded.to(settings.device)
        with torch.inference_mode():
            outputs = loaded.generate(
                input_ids=padded,
                attention_mask=padded != Vocabulary.PAD,
                num_beams=settings.beam,
                length_penalty=1.0,
                early_stopping=True,
                do_sample=False,
                max_length=settings.max_length + 2,
                max_length_a=0.0,
                max_length_b=settings.max_length,
            )
        return [[token for token in output if token != Vocabulary.PAD] for output in outputs[:, 1:].tolist()]

    return by_batches(settings, search)


def ctranslate2_side(settings: Settings, model: ExportModel, work: Path) -> Side:
    """CTranslate2 on its exported folder."""
    write_ctranslate2(model, work / "ctranslate2", "bfloat16" if settings.dtype == "bf16" else "float32")
    translator = ctranslate2.Translator(
        str(work / "ctranslate2"),
        device=settings.device,
        inter_threads=1,
        intra_threads=torch.get_num_threads(),
    )
    names = token_names(model.described(), model.config.vocabulary_rows)
    numbers = {name: number for number, name in enumerate(names)}

    def search(batch: Tokens) -> Tokens:
        found = translator.translate_batch(
            [[names[token] for token in source] for source in batch],
            beam_size=settings.beam,
            length_penalty=1.0,
            max_decoding_length=settings.max_length,
        )
        return [[*(numbers[name] for name in result.hypotheses[0]), Vocabulary.EOS] for result in found]

    return by_batches(settings, search)


@dataclass(frozen=True)
class Found:
    """What one side did."""

    seconds: list[float]
    """Of every round."""
    outputs: Tokens
    """Of the first."""

    @property
    def num_tokens(self) -> int:
        """Of all outputs, `</s>` counted."""
        return sum(map(len, self.outputs))


def measured(sides: Mapping[str, Side], sources: Tokens, rounds: int) -> dict[str, Found]:
    """Sides take turns, each is first in its turn; a round before them all is not timed."""
    found = {name: Found([], side(sources)) for name, side in sides.items()}
    names = list(sides)
    for _ in range(rounds):
        for name in names:
            start = time.perf_counter()
            sides[name](sources)
            found[name].seconds.append(time.perf_counter() - start)
        names.append(names.pop(0))
    return found


def markdown(settings: Settings, config: DeltaLMConfig, found: Mapping[str, Found]) -> str:
    """The page of results."""
    machine = {**report.machine(settings.device), "ctranslate2": version("ctranslate2")}
    ours = found[OURS]
    rows = []
    for name, side in found.items():
        # By tokens a second, for outputs of other lengths are other work.
        ratio = statistics.median(
            (ours.num_tokens / own) / (side.num_tokens / other)
            for own, other in zip(ours.seconds, side.seconds, strict=True)
        )
        rate = side.num_tokens / statistics.median(side.seconds)
        same = sum(one == other for one, other in zip(ours.outputs, side.outputs, strict=True))
        rows.append(
            f"| {name} | {rate:,.0f} | {ratio:.2f} | {side.num_tokens:,} | {same} of {len(ours.outputs)} |\n"
        )
    described = ", ".join(f"{name} {value}" for name, value in machine.items())
    weights = (
        f"random weights, {settings.preset}" if settings.model is None else f"model {settings.model.name}"
    )
    return (
        "# Generating\n\n"
        f"Machine: {described}. {weights} ({config.vocabulary_rows:,} rows), {settings.dtype}; "
        f"{settings.sentences} sources, beam {settings.beam}, at most {settings.max_length} tokens, batches "
        f"of {settings.batch_tokens:,} source tokens. {settings.rounds} rounds, medians.\n\n"
        "| side | tokens/s | ours is so many times as fast | tokens of its outputs | outputs as ours |\n"
        "|---|---|---|---|---|\n" + "".join(rows)
    )


def main() -> None:
    """Parse, measure, write."""
    settings = tyro.cli(Settings)
    with tempfile.TemporaryDirectory() as work:
        path = settings.model or made_model(Path(work), settings.preset)
        folder, model = ModelFolder.open(path), read_model(path)
        sides = {
            OURS: our_side(settings, folder),
            "transformers": transformers_side(settings, model, Path(work)),
            "CTranslate2": ctranslate2_side(settings, model, Path(work)),
        }
        found = measured(sides, sources_of(settings, folder, model.config), settings.rounds)
    text = markdown(settings, model.config, found)
    print(text)
    settings.results.mkdir(exist_ok=True)
    name = f"generate-{report.hardware(settings.device)}-{settings.dtype}.md"
    write_text_atomically(settings.results / name, text)


if __name__ == "__main__":
    sys.exit(main())
