"""Which tokens may be generated."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.decoding.lines import read_lines
from deltalm_ds.errors import UserError
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.text.vocabulary import FIRST_ORDINARY_PIECE, Vocabulary

_LINES_AT_ONCE = 10_000


def ordinary_tokens(vocabulary: Vocabulary, num_rows: int) -> NDArray[np.bool_]:
    """What any output may be made of, [num_rows]: ordinary pieces and `</s>`.

    Not `<s>`, `<pad>`, `<unk>`, `<mask>`, sentinels, tags, nor rows that no token has.
    """
    allowed = np.zeros(num_rows, dtype=np.bool_)
    allowed[FIRST_ORDINARY_PIECE + 1 : vocabulary.num_pieces + 1] = True
    allowed[Vocabulary.EOS] = True
    return allowed


def tokens_of_text(tokenizer: Tokenizer, lines: Iterable[str], num_rows: int) -> NDArray[np.bool_]:
    """What of `ordinary_tokens` occurs in some text, [num_rows], and `</s>`."""
    found = np.zeros(num_rows, dtype=np.bool_)
    found[Vocabulary.EOS] = True
    batch: list[str] = []
    for line in lines:
        batch.append(line)
        if len(batch) == _LINES_AT_ONCE:
            _mark(found, tokenizer, batch)
            batch = []
    _mark(found, tokenizer, batch)
    return found & ordinary_tokens(tokenizer.vocabulary, num_rows)


def tokens_of_file(tokenizer: Tokenizer, path: Path, num_rows: int) -> NDArray[np.bool_]:
    """The same of a file of UTF-8 text; UserError where it cannot be read or has no piece."""
    try:
        with path.open("rb") as file:
            texts = (line.text for line in read_lines(file, str(path)))
            allowed = tokens_of_text(tokenizer, texts, num_rows)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    if allowed.sum() == 1:
        raise UserError(f"{path} has no text to take pieces from: give text of the language to write")
    return allowed


def _mark(found: NDArray[np.bool_], tokenizer: Tokenizer, texts: list[str]) -> None:
    for ids in tokenizer.encode_batch(texts):
        found[ids] = True
