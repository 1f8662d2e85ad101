"""Inputs cut into pieces: the same documents whatever the cuts, the same cuts however a text is stored."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_files import COMPRESS, inputs_of, pieces_of, read, write, write_zip

from deltalm_ds.errors import UserError
from deltalm_ds.text import pieces
from deltalm_ds.text.inputs import Input, TextOptions
from deltalm_ds.text.pieces import Part, Piece, parts_of, read_pieces

WORDS = ["a", "é", "\n", "\r\n", " ", "\t", "\n\n", "\n \r\n", "\u3000", "\ufeff", "mot " * 20]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=40).map("".join)
SIZES = st.sampled_from([1, 2, 3, 7, 64, 1000])


def documents_of(text: str, lines_are_documents: bool = False) -> list[tuple[str, list[str]]]:
    """What a text in French holds, read in the plainest way."""
    lines = [line.strip() for line in text.removeprefix("\ufeff").split("\n")]
    if lines_are_documents:
        return [("fr", [line]) for line in lines if line]
    documents: list[list[str]] = [[]]
    for line in lines:
        if line:
            documents[-1].append(line)
        else:
            documents.append([])
    return [("fr", document) for document in documents if document]


def cuts(several: Sequence[Piece]) -> list[tuple[int, tuple[int, ...], tuple[bytes, ...]]]:
    return [(piece.number, piece.offsets, piece.read()) for piece in several]


def stored_in_every_way(folder: Path, content: bytes) -> list[Input]:
    """A French text, plain first."""
    for suffix in COMPRESS:
        write(folder / f"{suffix[1:] or 'plain'}" / f"fr.txt{suffix}", content)
    write_zip(folder / "zip" / "a.zip", {"more/fr.txt": content})
    names = ("plain", *(suffix[1:] for suffix in COMPRESS if suffix), "zip")
    return [inputs_of(folder / name)[0] for name in names]


@settings(max_examples=60, deadline=None)
@given(text=TEXTS, piece_bytes=SIZES, read_bytes=st.sampled_from([1, 5, 1000]), lines=st.booleans())
def test_documents_do_not_depend_on_pieces_or_storage(
    text: str, piece_bytes: int, read_bytes: int, lines: bool
) -> None:
    options = TextOptions(documents="lines" if lines else "blocks")
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.multiple(pieces, PIECE_BYTES=piece_bytes, _READ_BYTES=read_bytes),
    ):
        plain, *others = stored_in_every_way(Path(folder), text.encode())
        if lines:
            plain = inputs_of(Path(folder) / "plain", options=options)[0]
            others = [inputs_of(entry.files[0].path, options=options)[0] for entry in others]
        assert read([plain]) == documents_of(text, lines)
        expected = cuts(pieces_of([plain]))
        assert b"".join(content for _, _, (content,) in expected) == text.encode()
        for entry in others:
            assert cuts(pieces_of([entry])) == expected


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.tuples(*[st.sampled_from(["", "a", "é " * 9, " \r", "x" * 50])] * 2), max_size=30),
    ends=st.tuples(st.booleans(), st.booleans()),
    piece_bytes=st.sampled_from([2, 3, 7, 64, 1000]),
    suffixes=st.tuples(*[st.sampled_from(["", ".gz"])] * 2),
)
def test_pairs_do_not_depend_on_pieces_or_storage(
    lines: list[tuple[str, str]], ends: tuple[bool, bool], piece_bytes: int, suffixes: tuple[str, str]
) -> None:
    texts = ["".join(pair[side] + "\n" for pair in lines) for side in range(2)]
    for side in range(2):
        if lines and lines[-1][side] and not ends[side]:
            texts[side] = texts[side][:-1]
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.multiple(pieces, PIECE_BYTES=piece_bytes, _READ_BYTES=5),
    ):
        for language, text, suffix in zip(("en", "fr"), texts, suffixes, strict=True):
            write(Path(folder) / f"train.{language}{suffix}", text)
        inputs = inputs_of(Path(folder))
        pairs = [[left.strip(), right.strip()] for left, right in lines]
        assert read(inputs) == [("en-fr", pair) for pair in pairs if all(pair)]
        several = pieces_of(inputs)
        assert [b"".join(piece.read()[side] for piece in several).decode() for side in range(2)] == texts
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        assert sum(piece.stored_bytes for piece in several) == (size if texts[0] else 0)


@settings(max_examples=40, deadline=None)
@given(text=TEXTS, piece_bytes=SIZES, of_a_part=st.integers(1, 9))
def test_parts_cover_a_file_once(text: str, piece_bytes: int, of_a_part: int) -> None:
    with tempfile.TemporaryDirectory() as folder, patch.object(pieces, "PIECE_BYTES", piece_bytes):
        (entry,) = inputs_of(write(Path(folder) / "fr.txt", text))
        expected = cuts(pieces_of([entry]))
        with patch.object(pieces, "PIECES_OF_A_PART", of_a_part):
            parts = parts_of(entry)
            assert cuts(pieces_of([entry])) == expected
            assert sum(part.stored_bytes for part in parts) == len(text.encode())
            assert [part.first for part in parts] == list(
                range(0, -(-len(text.encode()) // piece_bytes), of_a_part)
            )
            assert not parts or parts[-1].end == -(-len(text.encode()) // piece_bytes)
            # In any order: a part needs nothing of those before it.
            backwards = [cuts(list(read_pieces(part))) for part in reversed(parts)]
            assert [piece for part in reversed(backwards) for piece in part] == expected


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", ["fr.txt", "fr.jsonl", "en-fr.tsv", "en-fr.tmx"])
def test_every_format_is_cut_between_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, suffix: str
) -> None:
    unit = {
        "fr.txt": "ligne {0}\nsuite {0}\n\n",
        "fr.jsonl": '{{"text": "ligne {0}\\n\\nsuite {0}"}}\n',
        "en-fr.tsv": "line {0}\tligne {0}\n",
        "en-fr.tmx": "<tu><tuv lang='en'><seg>line\n\n{0}</seg></tuv>\n"
        "<tuv lang='fr'><seg>ligne {0}</seg></tuv></tu>\n",
    }[name]
    inputs = inputs_of(write(tmp_path / (name + suffix), "".join(map(unit.format, range(300)))))
    whole = read(inputs)
    assert len(whole) == 300
    monkeypatch.setattr(pieces, "PIECE_BYTES", 500)
    assert read(inputs) == whole
    several = pieces_of(inputs)
    assert len(several) > 8
    assert sum(piece.stored_bytes for piece in several) == (tmp_path / (name + suffix)).stat().st_size


def test_a_document_longer_than_pieces_is_in_the_first_it_touches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 100)
    for suffix in ("", ".gz"):
        path = write(tmp_path / f"fr.txt{suffix}", "a\n\n" + "mot\n" * 200 + "\nfin\n\n" + "x\n\n" * 40)
        several = pieces_of(inputs_of(path))
        assert [piece.number for piece in several] == [0, 8, 9]
        assert several[0].num_bytes == 3 + 801


def test_pieces_hold_no_more_than_a_document_beyond_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 100)
    inputs = inputs_of(write(tmp_path / "fr.txt.zst", "seize caractères\n\n" * 50))
    assert all(piece.num_bytes < 100 + 19 * 2 for piece in pieces_of(inputs))


def test_empty_files_have_no_pieces(tmp_path: Path) -> None:
    for name in ("fr.txt", "de.txt.gz", "train.en", "train.fr.xz"):
        write(tmp_path / name, "")
    assert pieces_of(inputs_of(tmp_path)) == []


@pytest.mark.parametrize(("extra", "count"), [("", 3), ("c\n", 4), ("c", 4), ("\n", 4)])
@pytest.mark.parametrize("shorter", ["en", "fr"])
@pytest.mark.parametrize("end", ["\n", ""])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("piece_bytes", [4, 1000])
def test_pairs_of_unequal_length_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    extra: str,
    count: int,
    shorter: str,
    end: str,
    suffix: str,
    piece_bytes: int,
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", piece_bytes)
    longer = "fr" if shorter == "en" else "en"
    write(tmp_path / f"train.{shorter}{suffix}", "a\nb" + end)
    write(tmp_path / f"train.{longer}{suffix}", "a\nb\nb\n" + extra)
    with pytest.raises(
        UserError, match=rf"train\.{shorter}\S* ends after line 2 and .*train\.{longer}\S* goes on"
    ):
        pieces_of(inputs_of(tmp_path))
    assert (tmp_path / f"train.{longer}{suffix}").is_file()


def test_an_empty_side_is_refused(tmp_path: Path) -> None:
    for empty, other in (("en", "fr"), ("fr", "en")):
        write(tmp_path / f"train.{empty}", "")
        write(tmp_path / f"train.{other}", "x\n")
        with pytest.raises(UserError, match=rf"train\.{empty} ends after line 0"):
            pieces_of(inputs_of(tmp_path))


@pytest.mark.parametrize("suffix", ["", ".zst"])
def test_endless_lines_and_documents_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(pieces, "MAX_DOCUMENT_BYTES", 1000)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 100)
    monkeypatch.setattr(pieces, "_READ_BYTES", 50)
    lines = TextOptions(documents="lines")
    path = write(tmp_path / f"fr.txt{suffix}", "mot\n" * 500)
    with pytest.raises(
        UserError, match=r"no blank line within 1,000 bytes after byte 100: .*--documents lines"
    ):
        pieces_of(inputs_of(path))
    assert len(read(inputs_of(path, options=lines))) == 500
    write(path, "mot\n" * 50 + "mot " * 500)
    with pytest.raises(UserError, match=r"fr\.txt\S* has no line end within 1,000 bytes after .* is it text"):
        pieces_of(inputs_of(path, options=lines))
    path = write(tmp_path / f"en-fr.tmx{suffix}", "<tu>" * 500)
    with pytest.raises(UserError, match="no </tu> within"):
        pieces_of(inputs_of(path))


def test_a_side_much_longer_than_the_other_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "MAX_DOCUMENT_BYTES", 1000)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 100)
    monkeypatch.setattr(pieces, "_READ_BYTES", 50)
    write(tmp_path / "train.en", "\n" * 100)
    write(tmp_path / "train.fr", ("mot " * 20 + "\n") * 100)
    with pytest.raises(UserError, match=r"train\.fr has only \d+ lines within .*train\.en has 51"):
        pieces_of(inputs_of(tmp_path))
    write(tmp_path / "train.fr", "mot " * 1000)
    with pytest.raises(UserError, match=r"train\.fr has only 0 lines"):
        pieces_of(inputs_of(tmp_path))


def a_part(folder: Path, name: str) -> Part:
    content = "".join(f"ligne {number}\n\n" for number in range(50))
    if name == "a.zip":
        write_zip(folder / name, {"fr.txt": content})
    else:
        write(folder / name, content)
    if name.startswith("train"):
        write(folder / "train.en", content)
    (part,) = parts_of(inputs_of(folder)[0])
    return part


@pytest.mark.parametrize("name", ["fr.txt", "fr.txt.gz", "a.zip", "train.fr", "train.fr.zst"])
@pytest.mark.parametrize("change", ["grown", "touched", "replaced"])
@pytest.mark.parametrize("when", ["before", "while"])
def test_a_file_that_changes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: str, when: str
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 100)
    part = a_part(tmp_path, name)
    several = read_pieces(part)
    if when == "while":
        next(several)
    path = tmp_path / name
    if change == "grown":
        with path.open("ab") as file:
            file.write(b"x")
    elif change == "touched":
        os.utime(path, ns=(0, 0))
    else:
        (tmp_path / "new").write_bytes(path.read_bytes() + b"\n")
        (tmp_path / "new").replace(path)
    with pytest.raises(UserError, match=rf"{name} has changed since this began to read its inputs"):
        _ = next(several) if when == "before" else list(several)


def test_a_piece_of_a_file_that_changed_is_told(tmp_path: Path) -> None:
    (piece,) = list(read_pieces(a_part(tmp_path, "fr.txt")))
    assert piece.contents is None
    (tmp_path / "fr.txt").write_text("court")
    with pytest.raises(UserError, match=r"fr\.txt has changed"):
        piece.read()


@pytest.mark.parametrize("name", ["fr.txt", "fr.txt.gz", "a.zip", "train.fr"])
def test_a_file_that_vanished_is_named(tmp_path: Path, name: str) -> None:
    part = a_part(tmp_path, name)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=rf"{name} cannot be read: No such file"):
        list(read_pieces(part))
    with pytest.raises(UserError, match=rf"{name} cannot be read: No such file"):
        parts_of(part.input)


def test_a_member_that_vanished_is_named(tmp_path: Path) -> None:
    part = a_part(tmp_path, "a.zip")
    write_zip(tmp_path / "a.zip", {"de.txt": "x"})
    with pytest.raises(UserError, match=r"a\.zip has no member 'fr\.txt' any more"):
        parts_of(part.input)
    with pytest.raises(UserError, match=r"a\.zip has no member 'fr\.txt' any more|has changed"):
        list(read_pieces(part))
