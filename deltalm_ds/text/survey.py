"""A first pass over all text: that it can be read, how much of what there is, a sample for the tokenizer."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from deltalm_ds.errors import UserError
from deltalm_ds.processes import Workers
from deltalm_ds.text.inputs import Input, PairInput
from deltalm_ds.text.readers import Block, parse_block, read_blocks


@dataclass(frozen=True)
class Survey:
    """What is in the inputs."""

    num_documents: Mapping[Input, int]
    """Documents or pairs with text, of every input."""
    num_blank_pairs: Mapping[Input, int]
    """Pairs of every input that are left out, for a side is blank."""
    language_bytes: Mapping[str, int]
    """UTF-8 bytes of the text of every language, both sides of pairs counted and held-out inputs not."""
    digest: str
    """SHA-256 that changes with any byte of any input."""


def survey_inputs(inputs: Sequence[Input], workers: Workers, progress: Callable[[int], object]) -> Survey:
    """Read everything once, telling `progress` the bytes. UserError for an input without text or not text."""
    num_documents: Counter[Input] = Counter()
    num_blank_pairs: Counter[Input] = Counter()
    language_bytes: Counter[str] = Counter()
    digest = hashlib.sha256()
    for block in workers.map(_survey_block, read_blocks(inputs)):
        num_documents[block.input] += block.num_documents
        num_blank_pairs[block.input] += block.num_blank_pairs
        language_bytes.update(block.language_bytes)
        digest.update(block.digest.encode())
        progress(block.stored_bytes)
    for entry in inputs:
        if not num_documents[entry]:
            names = " and ".join(map(str, entry.paths))
            raise UserError(f"{names}: there is no text in it; leave it out or fill it")
    return Survey(num_documents, num_blank_pairs, language_bytes, digest.hexdigest())


@dataclass(frozen=True)
class _BlockSurvey:
    input: Input
    num_documents: int
    num_blank_pairs: int
    language_bytes: Counter[str]
    stored_bytes: int
    digest: str


def _survey_block(block: Block) -> _BlockSurvey:
    num_documents = 0
    language_bytes: Counter[str] = Counter()
    for document in parse_block(block):
        num_documents += 1
        for language, line in _lines_by_language(document.languages, document.lines):
            language_bytes[language] += len(line.encode("utf-8"))
    if block.input.held_out:
        language_bytes.clear()
    num_blank_pairs = len(block.lines[0]) - num_documents if isinstance(block.input, PairInput) else 0
    return _BlockSurvey(
        block.input, num_documents, num_blank_pairs, language_bytes, block.stored_bytes, block.digest
    )


def _lines_by_language(languages: Sequence[str], lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every line with its language: the first and the second side of a pair, or all lines of one language."""
    for index, line in enumerate(lines):
        yield languages[index if len(languages) > 1 else 0], line


def sampling_rates(language_bytes: Mapping[str, int], exponent: float, max_bytes: int) -> dict[str, float]:
    """How often to take each language's lines for a language's share to be proportional to bytes^exponent.

    The sample has as many bytes as there are, `max_bytes` at most; so small languages have rates above one,
    their lines repeated, and large ones below.
    """
    total = min(sum(language_bytes.values()), max_bytes)
    shares = {language: count**exponent for language, count in language_bytes.items()}
    scale = total / sum(shares.values())
    return {language: scale * share / language_bytes[language] for language, share in shares.items()}


def sample_lines(
    inputs: Sequence[Input],
    rates: Mapping[str, float],
    seed: int,
    workers: Workers,
    progress: Callable[[int], object],
) -> Iterator[str]:
    """Lines of all inputs that are not held out, each as often as its language's rate says.

    Which ones depends on `seed` and the inputs alone. `progress` is told the bytes read.
    """
    blocks = read_blocks([entry for entry in inputs if not entry.held_out])
    for stored_bytes, lines in workers.map(partial(_sample_block, rates=rates, seed=seed), blocks):
        progress(stored_bytes)
        yield from lines


def _sample_block(block: Block, rates: Mapping[str, float], seed: int) -> tuple[int, list[str]]:
    generator = random.Random(f"{seed} {block.input.name} {block.input.ordinal} {block.first_line}")
    lines = []
    for document in parse_block(block):
        for language, line in _lines_by_language(document.languages, document.lines):
            copies, chance = divmod(rates[language], 1)
            lines.extend([line] * (int(copies) + (generator.random() < chance)))
    return block.stored_bytes, lines
