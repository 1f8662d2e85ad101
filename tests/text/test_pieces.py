"""Texts cut into pieces: by the text alone, each byte once."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import documents_of, pieces_of, read

from deltalm_ds.errors import UserError
from deltalm_ds.text import pieces
from deltalm_ds.text.inputs import TextOptions, understand
from deltalm_ds.text.pieces import parts_of, read_pieces

lines = st.text(st.sampled_from("abé \t\u00a0\r"), max_size=12)
texts = st.lists(lines, max_size=30).flatmap(
    lambda content: st.sampled_from(
        ["\n".join(content), "\n".join([*content, ""]), "\ufeff" + "\r\n".join(content)]
    )
)


def documents(text: str, one_a_line: bool) -> list[list[str]]:
    """The documents of a text, by the definition."""
    stripped = [line.strip() for line in text.removeprefix("\ufeff").split("\n")]
    if one_a_line:
        return [[line] for line in stripped if line]
    found: list[list[str]] = [[]]
    for line in stripped:
        if line:
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [document for document in found if document]


@settings(max_examples=150, deadline=None)
@given(texts, st.integers(1, 60), st.integers(1, 4), st.sampled_from(["blocks", "lines"]))
def test_documents_do_not_depend_on_the_cuts(text: str, size: int, pieces_of_a_part: int, mode: str) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_BYTES", size)
        patch.setattr(pieces, "PIECES_OF_A_PART", pieces_of_a_part)
        folder = Path(name)
        content = text.encode()
        (folder / "fr.txt").write_bytes(content)
        (folder / "fr.txt.gz").write_bytes(gzip.compress(content))
        options = TextOptions(documents=mode)  # type: ignore[arg-type]
        (plain,), _ = understand([folder / "fr.txt"], options)
        (stored,), _ = understand([folder / "fr.txt.gz"], options)
        assert [found for _, found in documents_of([plain])] == documents(text, mode == "lines")
        cut, streamed = pieces_of([plain]), pieces_of([stored])
        assert b"".join(piece.read()[0] for piece in cut) == content
        described = [(piece.number, piece.offsets, piece.read(), piece.num_bytes) for piece in cut]
        assert described == [
            (piece.number, piece.offsets, piece.read(), piece.num_bytes) for piece in streamed
        ]
        assert [piece.number for piece in cut] == sorted({piece.number for piece in cut})


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(lines, lines), max_size=20),
    st.integers(2, 60),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_pairs_do_not_depend_on_the_cuts(
    pairs: list[tuple[str, str]], size: int, first_ends: bool, second_ends: bool, compressed: bool
) -> None:
    if pairs and not all(pairs[-1]):  # a last line without text and line end is none
        pairs = [*pairs, ("a", "b")]
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_BYTES", size)
        folder = Path(name)
        sides = list(zip(*pairs, strict=True)) or [(), ()]
        for language, side, ends in zip(("en", "fr"), sides, (first_ends, second_ends), strict=True):
            content = ("\n".join(side) + "\n" * (ends and len(side) > 0)).encode()
            (folder / f"a.{language}").write_bytes(content)
        if compressed:
            (folder / "a.fr.gz").write_bytes(gzip.compress((folder / "a.fr").read_bytes()))
            (folder / "a.fr").unlink()
        expected = [[a.strip(), b.strip()] for a, b in pairs if a.strip() and b.strip()]
        inputs, _ = understand([folder], TextOptions())
        assert [found for _, found in documents_of(inputs)] == expected
        for side, language in enumerate(("en", "fr")):
            joined = b"".join(piece.read()[side] for piece in pieces_of(inputs))
            path = folder / f"a.{language}"
            if path.exists():
                assert joined == path.read_bytes()


@pytest.mark.parametrize("longer", ["en", "fr"])
@pytest.mark.parametrize("ends", ["", "\n"])
@pytest.mark.parametrize("size", [4, 1 << 20])
def test_pairs_of_unequal_length_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longer: str, ends: str, size: int
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", size)
    for language in ("en", "fr"):
        more = "\nc" if language == longer else ""
        (tmp_path / f"train.{language}").write_text(f"a\nb{more}{ends}")
    shorter = "en" if longer == "fr" else "fr"
    with pytest.raises(UserError, match=rf"train\.{shorter} ends after line 2 and .*train\.{longer} goes on"):
        read(tmp_path)


def test_endless_lines_and_documents_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MAX_DOCUMENT_BYTES", 1000)
    monkeypatch.setattr(pieces, "_READ_BYTES", 100)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 100)
    (tmp_path / "fr.txt").write_text("mot\n" * 500)
    with pytest.raises(
        UserError, match=r"no blank line within 1,000 bytes after byte 100: .*--documents lines"
    ):
        read(tmp_path)
    assert len(read(tmp_path, options=TextOptions(documents="lines"))) == 500
    (tmp_path / "fr.txt").write_text("mot " * 500)
    with pytest.raises(UserError, match=r"no line end within .* is it text"):
        read(tmp_path, options=TextOptions(documents="lines"))
    (tmp_path / "fr.txt").unlink()
    (tmp_path / "a.en").write_text("a\n" * 20)
    (tmp_path / "a.fr").write_text("b" * 3000)
    with pytest.raises(UserError, match=r"a\.fr has no line end"):
        read(tmp_path)


def test_a_file_that_changes_between_planning_and_reading_is_named(tmp_path: Path) -> None:
    for name in ("fr.txt", "de.txt.gz", "a.en", "a.fr"):
        content = b"un\n"
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    inputs, _ = understand([tmp_path], TextOptions())
    parts = [part for entry in inputs for part in parts_of(entry)]
    planned = pieces_of([entry for entry in inputs if entry.name == "fr"])
    for name in ("fr.txt", "de.txt.gz", "a.fr"):
        with (tmp_path / name).open("ab") as file:
            file.write(b"deux\n")
    for part in parts:
        with pytest.raises(UserError, match=r"(fr\.txt|de\.txt\.gz|a\.fr) has changed since"):
            list(read_pieces(part))
    with pytest.raises(UserError, match=r"fr\.txt has changed since"):
        planned[0].read()


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "fr.txt").write_text("un")
    inputs, _ = understand([tmp_path], TextOptions())
    parts = parts_of(inputs[0])
    (tmp_path / "fr.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"fr\.txt"):
        list(read_pieces(parts[0]))
