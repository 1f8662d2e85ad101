"""The SentencePiece tokenizer: training one, and text to token ids and back."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from deltalm_ds.errors import UserError
from deltalm_ds.files import sha256_of
from deltalm_ds.text.vocabulary import FIRST_ORDINARY_PIECE, Vocabulary

_WORD_START = "\u2581"
_TRAINER_THREADS = 16  # a constant: the sums it makes, and so the pieces, depend on it
_MAX_LINE_CHARACTERS = 1000  # the trainer drops lines of more than 4,192 bytes
_ERRORS_ONLY = 2
_MASK = re.compile(r"<mask(_\d+)?>")


class Segment(NamedTuple):
    """A part of a token sequence, to be shown."""

    text: str
    """Text, with a space in front where a word begins; or a special token's name, "<mask_0>" or "</s>"."""
    is_special: bool
    """Whether it is a special token."""


class Tokenizer:
    """A SentencePiece model with the ids of `Vocabulary`.

    UserError for a file that is no SentencePiece model, one whose special pieces are not XLM-R's, or one
    that does not have the number of pieces of a given `vocabulary`.
    """

    def __init__(self, path: str | Path, vocabulary: Vocabulary | None = None) -> None:
        path = Path(path)
        if not path.is_file():
            raise UserError(f"the tokenizer {path} does not exist: give a SentencePiece .model file")
        self._pieces = sentencepiece.SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(path.read_bytes())
        except RuntimeError:
            raise UserError(f"{path} is not a SentencePiece model: give its .model file, undamaged") from None
        specials = (self._pieces.unk_id(), self._pieces.bos_id(), self._pieces.eos_id())
        if specials != (0, 1, 2):
            raise UserError(
                f"{path} has <unk>, <s>, </s> = {', '.join(map(str, specials))} where 0, 1, 2 are needed, "
                "as in XLM-R's model: give such a model or let prepare train one"
            )
        num_pieces = self._pieces.get_piece_size()
        self.vocabulary = vocabulary or Vocabulary(num_pieces)
        """What its ids mean."""
        if self.vocabulary.num_pieces != num_pieces:
            raise UserError(
                f"{path} has {num_pieces:,} pieces and the data's vocabulary {self.vocabulary.num_pieces:,}: "
                "give the tokenizer that made the data"
            )
        self.fingerprint = sha256_of(path)
        """SHA-256 of the model file."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        return self.encode_batch([text])[0].tolist()

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """Token ids [length] int32 of every text, without special tokens."""
        return [self.vocabulary.ids_of_pieces(numbers[:-1]) for numbers in self.pieces(texts)]

    def id_of_piece(self, piece: str) -> int | None:
        """The token id of an ordinary piece as the model spells it, with ▁ where a word begins, or None."""
        number = self._pieces.piece_to_id(piece)
        return int(number) + 1 if number >= FIRST_ORDINARY_PIECE else None

    def pieces(self, texts: list[str]) -> list[NDArray[np.int32]]:
        """SentencePiece's own numbers of every text and of </s> behind it; `ids_of_pieces` makes them ids."""
        return self._pieces.encode(texts, return_type="numpy", add_eos=True, num_threads=1)

    def decode(self, ids: Iterable[int], show_specials: bool = False) -> str:
        """The text of token ids: sentinels as <mask_0>, unknown pieces as the model shows them.

        <s>, </s>, <pad> and ids beyond the vocabulary's are left out, or shown by `show_specials`.
        """
        text = ""
        for segment in self.segments(ids):
            if not segment.is_special:
                text += segment.text
            elif show_specials or _MASK.fullmatch(segment.text):
                text += f" {segment.text}"
        return text.strip()

    def segments(self, ids: Iterable[int]) -> Iterator[Segment]:
        """Token ids as stretches of text, each as long as can be, and single special tokens."""
        vocabulary = self.vocabulary
        names = {vocabulary.BOS: "<s>", vocabulary.PAD: "<pad>", vocabulary.EOS: "</s>"}
        names[vocabulary.mask_id] = "<mask>"
        pieces: list[int] = []
        for token_id in map(int, ids):
            if vocabulary.is_piece(token_id) or token_id == vocabulary.UNK:
                pieces.append(0 if token_id == vocabulary.UNK else token_id - 1)
                continue
            if pieces:
                yield self._text_segment(pieces)
                pieces = []
            if vocabulary.is_sentinel(token_id):
                yield Segment(f"<mask_{token_id - vocabulary.first_sentinel_id}>", True)
            else:
                yield Segment(names.get(token_id, f"<{token_id}>"), True)
        if pieces:
            yield self._text_segment(pieces)

    def _text_segment(self, pieces: list[int]) -> Segment:
        begins_word = self._pieces.id_to_piece(pieces[0]).startswith(_WORD_START)
        return Segment((" " if begins_word else "") + self._pieces.decode(pieces), False)


def train_tokenizer(
    lines: Iterable[str], num_pieces: int, character_coverage: float, *, or_fewer: bool = False
) -> bytes:
    """The file of a unigram model of `num_pieces` pieces (<unk>, <s>, </s> among them) trained on `lines`.

    The same lines give the same bytes on any machine of the same SentencePiece version. Characters beyond
    `character_coverage` of the text become <unk>. UserError where the text has too few or too many distinct
    pieces for the size, saying which sizes would do; with `or_fewer` too few are taken as they are.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_short_lines(lines),
            model_writer=model,
            model_type="unigram",
            vocab_size=num_pieces,
            hard_vocab_limit=not or_fewer,
            character_coverage=character_coverage,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            num_threads=_TRAINER_THREADS,
            input_sentence_size=0,  # `lines` is the sample: none of it is dropped
            shuffle_input_sentence=False,
            minloglevel=_ERRORS_ONLY,
        )
    except RuntimeError as error:
        raise _training_error(str(error), num_pieces) from error
    return model.getvalue()


def _short_lines(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        for start in range(0, len(line), _MAX_LINE_CHARACTERS):
            yield line[start : start + _MAX_LINE_CHARACTERS]


def _training_error(message: str, num_pieces: int) -> UserError:
    if match := re.search(r"too high.*<= (\d+)", message, re.DOTALL):
        largest = int(match[1])
        return UserError(
            f"the text has too few distinct pieces for a vocabulary of {num_pieces:,}: "
            f"the largest is --vocabulary-size {largest}"
        )
    if match := re.search(r"smaller than required_chars\D*\d+ vs (\d+)", message, re.DOTALL):
        return UserError(
            f"a vocabulary of {num_pieces:,} cannot hold the text's characters: it needs more than "
            f"--vocabulary-size {match[1]}, or a lower --character-coverage"
        )
    return UserError(f"no tokenizer can be trained on this text: {' '.join(message.split())}")
