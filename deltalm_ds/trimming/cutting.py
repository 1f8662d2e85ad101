"""A model folder cut to some pieces of its vocabulary."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLM
from deltalm_ds.text.piece_models import kept_pieces, piece_origins
from deltalm_ds.text.vocabulary import Vocabulary
from deltalm_ds.weights import Description
from deltalm_ds.weights.source import TOKEN_TABLE
from deltalm_ds.weights.vocabulary_change import change_vocabulary


@dataclass(frozen=True)
class Trimmed:
    """A model with a smaller vocabulary, beside what it was."""

    before: DeltaLM
    """The model as it was."""
    after: DeltaLM
    """The same with fewer rows; all other parameters are shared."""
    description: Description
    """Of `after`; its tokenizer is the file that `trim_model` wrote."""
    old_rows: Tensor
    """[rows after] int64: where each row was before; -1 for one that was nowhere (unused by any token)."""
    old_pieces: NDArray[np.int64]
    """[pieces after]: the number of each piece before."""
    num_pieces_before: int
    """Pieces of the tokenizer before."""
    report: tuple[str, ...]
    """What was moved."""


def trim_model(
    folder: Path, description: Description, keep: Collection[int], keep_sentinels: bool, tokenizer: Path
) -> Trimmed:
    """Cut the model in `folder` to the pieces `keep` (SentencePiece numbers) and what must stay beside them.

    Tags stay. The smaller tokenizer is written to the file `tokenizer`. UserError for a damaged folder.
    """
    before = DeltaLM.from_pretrained(folder)
    old_model = description.tokenizer.read_bytes()
    new_model = kept_pieces(old_model, keep)
    origins = piece_origins(old_model, new_model)
    old = description.vocabulary
    old_tags = dict(description.task.tags) if description.task else {}
    new = Vocabulary(
        len(origins), num_sentinels=old.num_sentinels if keep_sentinels else 0, num_tags=len(old_tags)
    )
    in_order = sorted(old_tags, key=old_tags.__getitem__)
    new_tags = {language: new.first_tag_id + place for place, language in enumerate(in_order)}
    try:
        change = change_vocabulary(
            before.embedding.weight.detach(),
            before.config,
            old,
            new,
            pieces=origins,
            old_tags=old_tags,
            new_tags=new_tags,
        )
    except ValueError as error:
        raise UserError(f"{folder}: model and tokenizer do not fit together: {error}") from error
    with torch.device("meta"):
        after = DeltaLM(change.config)
    after.load_state_dict({**before.state_dict(), TOKEN_TABLE: change.table}, assign=True)
    tokenizer.write_bytes(new_model)
    task = description.task and dataclasses.replace(
        description.task, tags={language: new_tags[language] for language in old_tags}
    )
    return Trimmed(
        before=before,
        after=after,
        description=dataclasses.replace(description, tokenizer=tokenizer, vocabulary=new, task=task),
        old_rows=change.old_rows,
        old_pieces=np.array([origin.numbers[0] for origin in origins]),
        num_pieces_before=old.num_pieces,
        report=change.report,
    )
