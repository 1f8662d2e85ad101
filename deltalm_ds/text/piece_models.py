"""SentencePiece model files with fewer or more pieces, and how the pieces of two models correspond.

Only unigram models, which XLM-R's is: they cut a text into the pieces whose scores have the greatest sum, so
what pieces taken away or added change is known. A byte-pair model reaches a piece through shorter ones, which
the text itself may not show.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from deltalm_ds.errors import UserError
from deltalm_ds.text.vocabulary import EOS_PIECE, UNKNOWN_PIECE

_WORD_START = "\u2581"
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _, _BYTE = range(1, 7)  # types of pieces
_UNIGRAM = 1
_UNKNOWN_PENALTY = 10.0  # an unknown character scores that much below the lowest piece
_MARGIN = 0.1  # above the rounding of a line's summed scores, and little beside any piece's score


class PieceOrigin(NamedTuple):
    """Where a piece of a changed model comes from."""

    text: str
    """The piece, a word's start written \u2581."""
    numbers: tuple[int, ...]
    """Its number in the old model, or the numbers of the pieces that the old model cuts it into."""
    is_new: bool
    """Whether the old model lacks it."""


def kept_pieces(model: bytes, keep: Collection[int]) -> bytes:
    """The file of a model with only the pieces of these numbers, in their order.

    Kept beside them is whatever the rest depends on: <unk>, <s> and </s>; the lowest piece, from whose score
    that of unknown characters follows; the bytes of a model with byte fallback; and pieces defined by a user,
    which normalisation leaves alone, with the highest piece, from whose score theirs follows. So a text of
    kept pieces alone is cut as before. The same arguments give the same bytes.
    ValueError for numbers without a piece; UserError for a model that is not unigram.
    """
    proto = _parsed(model)
    if keep and not 0 <= min(keep) <= max(keep) < len(proto.pieces):
        raise ValueError(f"pieces {min(keep)}..{max(keep)} of a model with {len(proto.pieces)}")
    kept = {*keep, *range(UNKNOWN_PIECE, EOS_PIECE + 1)}
    scores = {number: piece.score for number, piece in enumerate(proto.pieces) if piece.type == _NORMAL}
    kept.add(min(scores, key=scores.__getitem__))
    always = {number for number, piece in enumerate(proto.pieces) if piece.type in (_BYTE, _USER_DEFINED)}
    if always:
        kept |= always | {max(scores, key=scores.__getitem__)}
    pieces = [proto.pieces[number] for number in sorted(kept)]
    return _serialised(proto, pieces)


def with_new_pieces(model: bytes, pieces: Sequence[str]) -> bytes:
    """The file of a model with these pieces behind its own, in the order given.

    A piece is written as SentencePiece writes it, `\u2581word` where a word begins. Each becomes an ordinary
    one, so that it competes with others and does not cut words that merely contain it. Its score is that of
    the pieces that it is cut into without it, and 0.1 more: wherever the old model, or a shorter new piece,
    would have cut just there, it is used, and nothing else changes. No score falls below the lowest of the
    old model, since that of unknown characters follows from it; new characters get the lowest.

    The same arguments give the same bytes. UserError for a piece that exists, is given twice, is empty, goes
    beyond a word, or that normalisation would change, for no text would ever contain it; and for a model that
    is not unigram.
    """
    proto = _parsed(model)
    _check_new(model, {piece.piece for piece in proto.pieces}, pieces)
    cutter = _Cutter(proto)
    scores: dict[str, float] = {}
    for text in sorted(pieces, key=lambda text: (len(text), text)):  # a longer one must beat the shorter
        score = max(cutter.cut(text)[1] + _MARGIN, cutter.lowest)
        cutter.add(text, len(proto.pieces) + len(scores), score)
        scores[text] = score
    new = [
        sentencepiece_model_pb2.ModelProto.SentencePiece(piece=text, score=scores[text], type=_NORMAL)
        for text in pieces
    ]
    return _serialised(proto, [*proto.pieces, *new])


def piece_origins(old: bytes, new: bytes) -> list[PieceOrigin]:
    """For each piece of the model `new`, in its order, where it comes from in the model `old`.

    UserError where `old` is not unigram.
    """
    old_proto, cutter = _parsed(old), None
    numbers = {piece.piece: number for number, piece in enumerate(old_proto.pieces)}
    origins = []
    for piece in _parsed(new).pieces:
        if piece.piece in numbers:
            origins.append(PieceOrigin(piece.piece, (numbers[piece.piece],), is_new=False))
        else:
            cutter = cutter or _Cutter(old_proto)
            origins.append(PieceOrigin(piece.piece, cutter.cut(piece.piece)[0], is_new=True))
    return origins


def _parsed(model: bytes) -> Any:
    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(model)
    except Exception as error:  # protobuf's own kind differs between its implementations
        raise UserError("not a SentencePiece model: give its .model file, undamaged") from error
    if proto.trainer_spec.model_type != _UNIGRAM:
        raise UserError(
            "the tokenizer is no unigram model, and only such can have pieces taken away or added"
        )
    return proto


def _serialised(proto: Any, pieces: Sequence[Any]) -> bytes:
    changed = type(proto)()
    changed.CopyFrom(proto)
    del changed.pieces[:]
    changed.pieces.extend(pieces)
    changed.trainer_spec.vocab_size = len(pieces)
    changed.DiscardUnknownFields()  # older versions stored samples of the cutting there, and check them
    return changed.SerializeToString(deterministic=True)


def _check_new(model: bytes, known: set[str], pieces: Sequence[str]) -> None:
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model)
    seen = set(known)
    for text in pieces:
        word = text.removeprefix(_WORD_START)
        if not word or _WORD_START in word or word.split() != [word]:
            raise UserError(f"the new piece {text!r} is not a word or a part of one: write {_WORD_START}word")
        if text in seen:
            where = "in the tokenizer already" if text in known else "given twice"
            raise UserError(f"the new piece {text!r} is {where}: leave it out")
        seen.add(text)
        normal = processor.normalize(word).strip(_WORD_START)
        if normal != word:
            raise UserError(
                f"the new piece {text!r} would never be found, since the tokenizer turns it into {normal!r}: "
                "give that instead"
            )


class _Cutter:
    """Cuts strings, without normalising them, as a unigram model does."""

    def __init__(self, proto: Any) -> None:
        self._pieces: dict[str, tuple[int, float]] = {}
        self._longest = 1
        self._bytes = {piece.piece: n for n, piece in enumerate(proto.pieces) if piece.type == _BYTE}
        normal = [piece.score for piece in proto.pieces if piece.type == _NORMAL]
        self.lowest = min(normal)
        """Score of the lowest piece."""
        for number, piece in enumerate(proto.pieces):
            if piece.type == _NORMAL:
                self.add(piece.piece, number, piece.score)
            elif piece.type == _USER_DEFINED:
                self.add(piece.piece, number, len(piece.piece) * max(normal) - 0.1)

    def add(self, text: str, number: int, score: float) -> None:
        """Know one more piece."""
        self._pieces[text] = (number, score)
        self._longest = max(self._longest, len(text))

    def cut(self, text: str) -> tuple[tuple[int, ...], float]:
        """Numbers of the pieces of the greatest summed score, and that sum."""
        best: list[tuple[float, int, tuple[int, ...]]] = [(0.0, 0, ())]  # score, start, numbers by end
        for end in range(1, len(text) + 1):
            candidates: list[tuple[float, int, tuple[int, ...]]] = []
            for start in range(max(0, end - self._longest), end):
                found = self._pieces.get(text[start:end])
                if found is not None:
                    candidates.append((best[start][0] + found[1], start, (found[0],)))
            if text[end - 1] not in self._pieces:
                score = best[end - 1][0] + self.lowest - _UNKNOWN_PENALTY
                candidates.append((score, end - 1, self._unknown(text[end - 1])))
            best.append(max(candidates))
        numbers: tuple[int, ...] = ()
        end = len(text)
        while end:
            _, end, last = best[end]
            numbers = last + numbers
        return numbers, best[-1][0]

    def _unknown(self, character: str) -> tuple[int, ...]:
        if not self._bytes:
            return (UNKNOWN_PIECE,)
        return tuple(self._bytes[f"<0x{byte:02X}>"] for byte in character.encode())
