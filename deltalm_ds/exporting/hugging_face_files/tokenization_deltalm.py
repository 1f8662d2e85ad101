"""DeltaLM's tokenizer: the pieces of a SentencePiece model under fairseq's ids, and special tokens.

0 `<s>`, 1 `<pad>`, 2 `</s>`, 3 `<unk>`; any other piece has its SentencePiece id + 1; `<mask>`, the sentinels
and the language tags follow. A source is `<s> [tag] text </s>`, a target `text </s>`; where a source has
` </s> ` between two parts, the token stands there.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sentencepiece
from transformers import PreTrainedTokenizer

_SEPARATOR = "</s>"
_FIRST_PIECE = 3  # after SentencePiece's <unk>, <s>, </s>
_UNKNOWN = 3


class DeltaLMTokenizer(PreTrainedTokenizer):
    """Text to ids and back.

    Args:
        vocab_file: the SentencePiece model.
        num_ids: how many ids there are, the rows of the model's table.
        num_sentinels, first_sentinel_id: `<mask_0>`, `<mask_1>`, …
        tags: language to write → id of its tag; empty for a model without tags.
        tgt_lang: the language to write; set `tokenizer.tgt_lang` to change it.
    """

    vocab_files_names = {"vocab_file": "sentencepiece.bpe.model"}  # noqa: RUF012
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(
        self,
        vocab_file: str,
        num_ids: int,
        num_sentinels: int = 0,
        first_sentinel_id: int = 0,
        tags: dict[str, int] | None = None,
        tgt_lang: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.vocab_file = vocab_file
        self.tags = dict(tags or {})
        self._writes_target = False
        self._pieces = sentencepiece.SentencePieceProcessor(model_file=vocab_file)
        self._num_pieces = self._pieces.get_piece_size()
        self._names = self._name_ids(num_ids, num_sentinels, first_sentinel_id)
        self._ids = {name: number for number, name in enumerate(self._names)}
        for name, token in (("bos", "<s>"), ("pad", "<pad>"), ("eos", "</s>"), ("unk", "<unk>")):
            kwargs.setdefault(f"{name}_token", token)
        self._tgt_lang: str | None = None
        super().__init__(
            num_ids=num_ids,
            num_sentinels=num_sentinels,
            first_sentinel_id=first_sentinel_id,
            tags=self.tags,
            tgt_lang=tgt_lang,
            **kwargs,
        )
        self.tgt_lang = next(iter(self.tags)) if tgt_lang is None and len(self.tags) == 1 else tgt_lang

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return len(self._names)

    @property
    def tgt_lang(self) -> str | None:
        """The language to write."""
        return self._tgt_lang

    @tgt_lang.setter
    def tgt_lang(self, language: str | None) -> None:
        if language is not None and language not in self.tags:
            raise ValueError(
                f"the model does not write {language!r}: it knows {', '.join(self.tags) or 'no tags'}"
            )
        self._tgt_lang = language

    def get_vocab(self) -> dict[str, int]:
        """Id of every token."""
        return dict(self._ids)

    def tokenize(self, text: str, **_: Any) -> list[str]:
        """Pieces, with `</s>` between the parts of a source; no other special token is read in text."""
        parts = [text] if self._writes_target else [part.strip() for part in text.split(_SEPARATOR)]
        tokens = self._pieces.encode(parts[0], out_type=str)
        for part in parts[1:]:
            tokens += [_SEPARATOR, *self._pieces.encode(part, out_type=str)]
        return tokens

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """`<s> [tag] text </s>`, or `text </s>` of a target; a second text becomes a second part."""
        if token_ids_1 is not None:
            token_ids_0 = [*token_ids_0, self.eos_token_id, *token_ids_1]
        if self._writes_target:
            return [*token_ids_0, self.eos_token_id]
        return [self.bos_token_id, *self._tag(), *token_ids_0, self.eos_token_id]

    def get_special_tokens_mask(
        self,
        token_ids_0: list[int],
        token_ids_1: list[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 at special tokens, 0 at pieces."""
        ids = token_ids_0
        if not already_has_special_tokens:
            ids = self.build_inputs_with_special_tokens(token_ids_0, token_ids_1)
        return [int(not self._is_text(number)) for number in ids]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Zeros: there are no token types."""
        return [0] * len(self.build_inputs_with_special_tokens(token_ids_0, token_ids_1))

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str]:
        """Copy the SentencePiece model."""
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        target = Path(save_directory) / f"{prefix}{self.vocab_files_names['vocab_file']}"
        if Path(self.vocab_file).resolve() != target.resolve():
            shutil.copyfile(self.vocab_file, target)
        return (str(target),)

    def _name_ids(self, num_ids: int, num_sentinels: int, first_sentinel_id: int) -> list[str]:
        """A name for every id; rows that stand for nothing have names too, so that none is taken twice."""
        names = ["<s>", "<pad>", "</s>", "<unk>"]
        names += [self._pieces.id_to_piece(piece) for piece in range(_FIRST_PIECE, self._num_pieces)]
        names = [*names, "<mask>"][:num_ids]
        names += [f"<unused_{number}>" for number in range(len(names), num_ids)]
        for index in range(num_sentinels):
            names[first_sentinel_id + index] = f"<mask_{index}>"
        for language, number in self.tags.items():
            names[number] = f"__{language}__"
        return names

    def _tag(self) -> list[int]:
        if not self.tags:
            return []
        if self._tgt_lang is None:
            raise ValueError(
                f"say which language to write: tokenizer.tgt_lang = one of {', '.join(self.tags)}"
            )
        return [self.tags[self._tgt_lang]]

    def _switch_to_input_mode(self) -> None:
        self._writes_target = False

    def _switch_to_target_mode(self) -> None:
        self._writes_target = True

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return self._pieces.encode(text, out_type=str)

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids.get(token, _UNKNOWN)

    def _convert_id_to_token(self, index: int) -> str:
        return self._names[index]

    def _is_text(self, number: int) -> bool:
        return _FIRST_PIECE <= number <= self._num_pieces

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Text of tokens, special ones by name."""
        return self._text(map(self._convert_token_to_id, tokens), False)

    def _decode(self, token_ids: int | list[int], skip_special_tokens: bool = False, **_: Any) -> str:
        return self._text([token_ids] if isinstance(token_ids, int) else token_ids, skip_special_tokens)

    def _text(self, token_ids: Iterable[int], skip_special_tokens: bool) -> str:
        text, pieces = "", []
        for number in [*token_ids, None]:
            if number is not None and self._is_text(number):
                pieces.append(0 if number == _UNKNOWN else number - 1)
                continue
            if pieces:
                begins_word = self._pieces.id_to_piece(pieces[0]).startswith("\u2581")
                text += (" " if begins_word else "") + self._pieces.decode(pieces)
                pieces = []
            if number is not None and not skip_special_tokens:
                text += f" {self._names[number]}"
        return text.strip()
