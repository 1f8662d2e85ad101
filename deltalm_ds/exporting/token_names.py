"""A name for every row of a model's table, for runtimes that know tokens by name."""

from __future__ import annotations

import sentencepiece

from deltalm_ds.text.vocabulary import FIRST_ORDINARY_PIECE
from deltalm_ds.weights.description import Description


def token_names(description: Description, num_rows: int) -> list[str]:
    """Names of ids 0..num_rows - 1, no two alike, as the tokenizer file for transformers gives them too.

    Pieces have SentencePiece's own names, tags `__fr__`; rows that stand for nothing are `<unused_N>`.
    """
    vocabulary = description.vocabulary
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(description.tokenizer))
    names = ["<s>", "<pad>", "</s>", "<unk>"]
    names += [pieces.id_to_piece(piece) for piece in range(FIRST_ORDINARY_PIECE, vocabulary.num_pieces)]
    names = [*names, "<mask>"][:num_rows]
    names += [f"<unused_{number}>" for number in range(len(names), num_rows)]
    for index in range(vocabulary.num_sentinels):
        names[vocabulary.sentinel_id(index)] = f"<mask_{index}>"
    for language, number in ({} if description.task is None else description.task.tags).items():
        names[number] = tag_name(language)
    return names


def tag_name(language: str) -> str:
    """The name of a target language's tag."""
    return f"__{language}__"
