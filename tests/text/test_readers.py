"""Documents and pairs from files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deltalm_ds.errors import UserError
from deltalm_ds.text import readers
from deltalm_ds.text.inputs import TextOptions, understand
from deltalm_ds.text.readers import Document, parse_block, read_blocks


def read(*paths: Path, options: TextOptions | None = None) -> list[Document]:
    inputs, _ = understand(paths, options or TextOptions())
    return [document for block in read_blocks(inputs) for document in parse_block(block)]


def test_blocks_between_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "fr.txt"
    path.write_bytes("\ufeff\r\n un \r\ndeux\r\n\r\n  \r\n\u00a0\ntrois\n\n\nquatre".encode())
    documents = read(path)
    assert [document.lines for document in documents] == [["un", "deux"], ["trois"], ["quatre"]]
    assert [document.key for document in documents] == [("fr", 0, 2), ("fr", 0, 7), ("fr", 0, 10)]
    assert {(document.source, document.languages) for document in documents} == {("fr", ("fr",))}


def test_a_document_a_line(tmp_path: Path) -> None:
    (tmp_path / "fr.txt").write_text("un\n\ndeux\ntrois", encoding="utf-8")
    documents = read(tmp_path, options=TextOptions(documents="lines"))
    assert [(document.lines, document.key[2]) for document in documents] == [
        (["un"], 1),
        (["deux"], 3),
        (["trois"], 4),
    ]


@pytest.mark.parametrize("block_bytes", [1, 7, 100, 10_000])
@pytest.mark.parametrize("mode", ["blocks", "lines"])
def test_documents_do_not_depend_on_the_blocks_they_are_read_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int, mode: str
) -> None:
    text = "\n".join(f"ligne {i} é" + "\n" * (i % 3) for i in range(60))
    (tmp_path / "fr.txt").write_text(text, encoding="utf-8")
    (tmp_path / "train.en").write_text("".join(f"a {i}\n" for i in range(50)))
    (tmp_path / "train.fr").write_text("".join(f"b {i}\n" for i in range(50)))
    options = TextOptions(documents=mode)  # type: ignore[arg-type]
    whole = read(tmp_path, options=options)
    monkeypatch.setattr(readers, "BLOCK_BYTES", block_bytes)
    inputs, _ = understand([tmp_path], options)
    blocks = list(read_blocks(inputs))
    assert [document for block in blocks for document in parse_block(block)] == whole
    assert len(whole) == 50 + (60 if mode == "lines" else 40)
    assert len(blocks) > 2 or block_bytes == 10_000
    assert sum(block.stored_bytes for block in blocks) == sum(
        path.stat().st_size for path in tmp_path.iterdir()
    )


def test_pairs_with_a_blank_side_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "train.fr").write_text("un\n\ntrois\nquatre\n")
    (tmp_path / "train.en").write_text("one\ntwo\n \nfour")
    (document,) = [document for document in read(tmp_path) if document.key[2] == 4]
    assert len(read(tmp_path)) == 2
    assert document == Document("en-fr", ("en", "fr"), ("en-fr", 0, 4), ["four", "quatre"])


def test_json_lines(tmp_path: Path) -> None:
    records = [
        {"body": "un\n\n deux ", "lang": "fr"},
        {"body": " \n", "lang": "fr"},
        {"body": "drei", "lang": "de"},
    ]
    text = "\n\n".join(json.dumps(record) for record in records)
    (tmp_path / "part.jsonl").write_text(text)
    documents = read(tmp_path, options=TextOptions(text_field="body", language_field="lang"))
    assert documents == [
        Document("fr", ("fr",), ("*", 0, 1), ["un", "deux"]),
        Document("de", ("de",), ("*", 0, 5), ["drei"]),
    ]
    (tmp_path / "part.jsonl").rename(tmp_path / "part.es.jsonl")
    assert {document.source for document in read(tmp_path, options=TextOptions(text_field="body"))} == {"es"}


@pytest.mark.parametrize(("line", "offset"), [(0, 3), (50, 353)])
def test_text_that_is_not_utf8_is_located(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: int, offset: int
) -> None:
    monkeypatch.setattr(readers, "BLOCK_BYTES", 64)
    lines = [b"mot %02d" % number for number in range(100)]
    lines[line] = b"mot\xe9"
    (tmp_path / "fr.txt").write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match=rf"fr\.txt is not UTF-8 at line {line + 1}, byte offset {offset}:"):
        read(tmp_path, options=TextOptions(documents="lines"))


def test_byte_offset_counts_the_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "fr.txt").write_bytes(b"\xef\xbb\xbfab\xff")
    with pytest.raises(UserError, match="line 1, byte offset 5:"):
        read(tmp_path)


def test_the_bad_file_of_a_pair_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.en").write_bytes(b"one\ntwo\n")
    (tmp_path / "train.fr").write_bytes(b"un\nd\xff\n")
    with pytest.raises(UserError, match=r"train\.fr is not UTF-8 at line 2, byte offset 4:"):
        read(tmp_path)


@pytest.mark.parametrize("longer", ["en", "fr"])
def test_pairs_of_unequal_length_are_refused(tmp_path: Path, longer: str) -> None:
    for language in ("en", "fr"):
        (tmp_path / f"train.{language}").write_text("a\nb\n" + ("c\n" if language == longer else ""))
    shorter = "en" if longer == "fr" else "fr"
    with pytest.raises(UserError, match=rf"train\.{shorter} ends after line 2 and .*train\.{longer} goes on"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not a JSON object"),
        ("[1]", "no field 'text'"),
        ('{"body": "x", "id": 1}', "it has body, id: name the right one with --text-field"),
        ('{"text": 5, "lang": "fr"}', "not text but int"),
        ('{"text": "x"}', "--language-field"),
        ('{"text": "x", "lang": "French"}', "'French' is no language code"),
        ('{"text": "\\ud800", "lang": "fr"}', "surrogate"),
        ("[" * 100_000, "not a JSON object"),
    ],
)
def test_bad_json_lines_are_located(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "part.jsonl").write_text('{"text": "x", "lang": "fr"}\n' + line)
    with pytest.raises(UserError, match=rf"part\.jsonl, line 2.*{message}"):
        read(tmp_path, options=TextOptions(language_field="lang"))


def test_endless_lines_and_documents_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_DOCUMENT_BYTES", 1000)
    monkeypatch.setattr(readers, "BLOCK_BYTES", 100)
    (tmp_path / "fr.txt").write_text("mot\n" * 500)
    with pytest.raises(UserError, match="--documents lines"):
        read(tmp_path)
    assert len(read(tmp_path, options=TextOptions(documents="lines"))) == 500
    (tmp_path / "fr.txt").write_text("mot " * 500)
    with pytest.raises(UserError, match="is it text"):
        read(tmp_path)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "fr.txt").write_text("un")
    inputs, _ = understand([tmp_path], TextOptions())
    (tmp_path / "fr.txt").unlink()
    with pytest.raises(UserError, match=r"fr\.txt: No such file"):
        list(read_blocks(inputs))
