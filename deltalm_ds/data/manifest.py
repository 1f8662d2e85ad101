"""manifest.json of a prepared folder: what is in it, which tokenizer made it, and a hash of everything."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from deltalm_ds.errors import UserError
from deltalm_ds.files import write_text_atomically
from deltalm_ds.text.vocabulary import Vocabulary

FORMAT = "deltalm-ds corpus"
VERSION = 2
MANIFEST_NAME = "manifest.json"
MAX_BYTES = 1 << 28
"""A larger file is none: a thousand sources take a megabyte."""

Kind = Literal["monolingual", "pairs"]
Split = Literal["train", "valid"]


@dataclass(frozen=True, kw_only=True)
class TokenizerEntry:
    """The tokenizer's file and the ids it stands for."""

    file: str
    """File name of the SentencePiece model within the folder."""
    sha256: str
    """Hash of that file: the tokenizer's fingerprint."""
    num_pieces: int
    """Pieces of the model, its three special ones counted."""
    num_sentinels: int
    """Sentinels of the vocabulary."""
    num_rows: int
    """Rows of the embedding table."""
    mask_id: int
    """Id of <mask>."""
    first_sentinel_id: int
    """Id of <mask_0>."""
    num_tags: int = 0
    """Language tags behind the sentinels; only data that a fine-tuning run made for itself have any."""

    def __post_init__(self) -> None:
        if PurePosixPath(self.file).name != self.file:
            raise ValueError(f"the tokenizer's file {self.file!r} leads out of the folder")

    @classmethod
    def of(cls, file: str, sha256: str, vocabulary: Vocabulary) -> TokenizerEntry:
        """The entry of the tokenizer in `file` with this vocabulary."""
        return cls(
            file=file,
            sha256=sha256,
            num_pieces=vocabulary.num_pieces,
            num_sentinels=vocabulary.num_sentinels,
            num_rows=vocabulary.num_rows,
            mask_id=vocabulary.mask_id,
            first_sentinel_id=vocabulary.first_sentinel_id,
            num_tags=vocabulary.num_tags,
        )

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary; ValueError where the numbers of this entry contradict each other."""
        vocabulary = Vocabulary(self.num_pieces, self.num_sentinels, self.first_sentinel_id, self.num_tags)
        if (vocabulary.mask_id, vocabulary.num_rows) != (self.mask_id, self.num_rows):
            raise ValueError(
                f"{self.num_pieces} pieces give <mask> {vocabulary.mask_id} and {vocabulary.num_rows} rows, "
                f"not {self.mask_id} and {self.num_rows}"
            )
        return vocabulary


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """One dataset: one language's text, or one language pair's sentences, of one split."""

    name: str
    """The language, or the two languages with a hyphen."""
    kind: Kind
    """"monolingual" (one sequence a document) or "pairs" (two)."""
    languages: tuple[str, ...]
    """One language, or the languages of source and target."""
    split: Split
    """"train" or "valid"."""
    prefix: str
    """Where its .bin and .idx are within the folder, without the suffix."""
    documents: int
    """Documents or pairs."""
    sequences: int
    """Sequences of the .idx."""
    tokens: int
    """Tokens of the .bin, <s> and </s> counted."""
    bin_bytes: int
    """Size of the .bin."""
    idx_bytes: int
    """Size of the .idx."""
    bin_sha256: str
    """`deltalm_ds.files.tree_hash` of the .bin."""
    idx_sha256: str
    """The same of the .idx."""
    weight: float = 1.0
    """What the source's share of the mixture is multiplied by."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or self.split not in get_args(Split):
            raise ValueError(f"source {self.name}: no kind {self.kind!r} or split {self.split!r}")
        if len(self.languages) != (2 if self.kind == "pairs" else 1):
            raise ValueError(f"source {self.name}: {self.kind} with the languages {self.languages}")
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"source {self.name}: a weight of {self.weight}")
        parts = PurePosixPath(self.prefix).parts
        if not parts or parts[0] == "/" or ".." in parts:
            raise ValueError(f"source {self.name}: prefix {self.prefix!r} leads out of the folder")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of a prepared folder."""

    tokenizer: TokenizerEntry
    """The tokenizer that made all of it."""
    dtype: str
    """numpy's name of the tokens' dtype in every .bin."""
    seed: int
    """The seed of the shuffle and of the validation split."""
    recipe: str
    """Hash of the inputs and settings that it was made from; no part of the fingerprint."""
    sources: tuple[SourceEntry, ...]
    """All datasets, of both splits."""

    def __post_init__(self) -> None:
        if self.dtype != self.tokenizer.vocabulary.token_dtype.name:
            raise ValueError(f"tokens of {self.tokenizer.num_rows} rows are not {self.dtype}")
        names = [(source.split, source.name) for source in self.sources]
        if len(set(names)) != len(names):
            raise ValueError("a source is listed twice")

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the canonical JSON of everything that training sees: equal data, equal fingerprint."""
        content = self._content()
        del content["recipe"]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(f"{FORMAT} {VERSION} {text}".encode()).hexdigest()

    def _content(self) -> dict[str, Any]:
        content = asdict(self)
        if not self.tokenizer.num_tags:  # as in manifests from before there were tags
            del content["tokenizer"]["num_tags"]
        return content

    def to_json(self) -> str:
        """The text of manifest.json."""
        content = {"format": FORMAT, "version": VERSION, "fingerprint": self.fingerprint, **self._content()}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read manifest.json strictly: ValueError for another format, a wrong type, a wrong fingerprint."""
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"it is not a manifest of the format {FORMAT!r}")
        if content.get("version") != VERSION:
            raise ValueError(f"version {content.get('version')}, and only version {VERSION} is known")
        for key in ("format", "version"):
            del content[key]
        fingerprint = content.pop("fingerprint", None)
        if not isinstance(content.get("sources"), list):
            raise ValueError("sources is not a list")
        tokenizer = content.get("tokenizer")
        if isinstance(tokenizer, dict):
            tokenizer = {"num_tags": 0, **tokenizer}
        content["tokenizer"] = _construct(TokenizerEntry, tokenizer)
        content["sources"] = tuple(_construct(SourceEntry, source) for source in content["sources"])
        manifest = _construct(cls, content)
        if manifest.fingerprint != fingerprint:
            raise ValueError("its fingerprint is not that of its contents: it was edited or damaged")
        return manifest

    def write(self, folder: str | Path) -> None:
        """Write manifest.json into a folder, atomically: the last file of a prepared folder."""
        write_text_atomically(Path(folder) / MANIFEST_NAME, self.to_json())

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """Read a prepared folder's manifest; UserError where it is missing or damaged."""
        path = Path(folder) / MANIFEST_NAME
        try:
            if path.stat().st_size > MAX_BYTES:
                raise UserError(f"{path} has more than {MAX_BYTES:,} bytes: it is no manifest")
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"{folder} is not a prepared folder (no {MANIFEST_NAME}): "
                "make one with python -m deltalm_ds.prepare"
            ) from None
        except UnicodeDecodeError:
            raise UserError(f"{path} is damaged (not UTF-8): prepare the data again") from None
        try:
            return cls.from_json(text)
        except RecursionError:
            raise UserError(
                f"{path} is not usable (it is nested too deeply): prepare the data again"
            ) from None
        except ValueError as error:
            raise UserError(f"{path} is not usable ({error}): prepare the data again") from None


_PLAIN_TYPES: Mapping[str, type] = {"str": str, "Kind": str, "Split": str}


def _construct(kind: Any, content: Any) -> Any:
    """The dataclass `kind` from a JSON object with exactly its fields, each of its type."""
    if not isinstance(content, dict):
        raise ValueError(f"where {kind.__name__} was expected is no object")
    names = {field.name for field in fields(kind)}
    if content.keys() != names:
        raise ValueError(f"{kind.__name__} lacks or does not know {sorted(content.keys() ^ names)}")
    values = {
        field.name: _checked(field.name, str(field.type), content[field.name]) for field in fields(kind)
    }
    return kind(**values)


def _checked(name: str, expected: str, value: Any) -> Any:
    if expected == "int":
        valid = type(value) is int and value >= 0
    elif expected == "float":
        valid = type(value) in (int, float)
        value = float(value) if valid else value
    elif expected == "tuple[str, ...]":
        valid = isinstance(value, list) and all(isinstance(item, str) for item in value)
        value = tuple(value) if valid else value
    else:
        valid = expected not in _PLAIN_TYPES or isinstance(value, _PLAIN_TYPES[expected])
    if not valid:
        raise ValueError(f"{name} is {value!r}")
    return value
