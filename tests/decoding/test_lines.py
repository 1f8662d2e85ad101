"""Lines and chunks of them."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from deltalm_ds.decoding import lines
from deltalm_ds.decoding.lines import Line, read_chunks, read_lines
from deltalm_ds.errors import UserError


def read(content: bytes) -> Iterator[Line]:
    return read_lines(io.BytesIO(content), "text")


def test_line_ends_are_no_text() -> None:
    content = b"\xef\xbb\xbfone\r\n\r\n two \ntab\there\xe2\x80\xa8still\rhere\n\nlast"
    texts = [line.text for line in read(content)]
    assert texts == ["one", "", " two ", "tab\there\u2028still\rhere", "", "last"]
    assert b"".join(line.content for line in read(content)) == content
    assert list(read(b"")) == []


def test_what_is_no_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="text, line 2, is not UTF-8"):
        list(read(b"one\n\xff\n"))
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 5)
    assert [line.text for line in read(b"fives\r\nfives")] == ["fives", "fives"]
    with pytest.raises(UserError, match="text, line 2, is longer than 5 bytes"):
        list(read(b"one\nsixsix\n"))


def test_chunks_follow_from_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = list(read_chunks(read(b"a\nb\nc\n"), None, 2))
    assert [(chunk.number, chunk.first_line, chunk.texts) for chunk in chunks] == [
        (0, 0, ("a", "b")),
        (1, 2, ("c",)),
    ]
    assert [chunk.num_bytes for chunk in chunks] == [4, 2]
    other = list(read_chunks(read(b"a\nB\nc\n"), None, 2))
    assert [one.digest == two.digest for one, two in zip(chunks, other, strict=True)] == [False, True]
    monkeypatch.setattr(lines, "_CHUNK_BYTES", 4)
    sizes = [len(chunk.texts) for chunk in read_chunks(read(b"abcde\na\nb\nc\n"), None, 100)]
    assert sizes == [1, 2, 1]


def test_targets_go_with_their_lines() -> None:
    (chunk,) = read_chunks(read(b"a\nb\n"), read(b"A\n\n"), 5)
    assert chunk.targets == ("A", "")
    (other,) = read_chunks(read(b"a\nb\n"), read(b"A\nB\n"), 5)
    assert chunk.digest != other.digest
    for targets, message in ((b"A\n", "only 1 targets"), (b"A\nB\nC\n", "more targets than the 2 lines")):
        with pytest.raises(UserError, match=message):
            list(read_chunks(read(b"a\nb\n"), read(targets), 5))
