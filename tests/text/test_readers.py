"""Documents and pairs from files of every format."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from reading import documents_of, pieces_of, read

from deltalm_ds.errors import UserError
from deltalm_ds.text import pieces
from deltalm_ds.text.inputs import TextOptions, understand
from deltalm_ds.text.readers import Documents, parse


def test_blocks_between_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "fr.txt"
    path.write_bytes("\ufeff\r\n un \r\ndeux\r\n\r\n  \r\n\u00a0\ntrois\n\n\nquatre".encode())
    assert read(path) == [("fr", ["un", "deux"]), ("fr", ["trois"]), ("fr", ["quatre"])]


def test_a_document_a_line(tmp_path: Path) -> None:
    (tmp_path / "fr.txt").write_text("un\n\ndeux\ntrois", encoding="utf-8")
    documents = read(tmp_path, options=TextOptions(documents="lines"))
    assert documents == [("fr", ["un"]), ("fr", ["deux"]), ("fr", ["trois"])]


def test_columns_hold_documents_one_after_the_other() -> None:
    documents = Documents("fr", ("fr",))
    for lines in (["a", "b"], ["c"], ["d", "e"]):
        documents.add(lines)
    assert list(documents) == [["a", "b"], ["c"], ["d", "e"]]
    assert (len(documents), documents.lines) == (3, ["a", "b", "c", "d", "e"])


def test_pairs_with_a_blank_side_are_counted(tmp_path: Path) -> None:
    (tmp_path / "train.fr").write_text("un\n\ntrois\nquatre\n")
    (tmp_path / "train.en").write_text("one\ntwo\n \nfour")
    assert read(tmp_path) == [("en-fr", ["one", "un"]), ("en-fr", ["four", "quatre"])]
    inputs, _ = understand([tmp_path], TextOptions())
    assert [parse(piece).left_out for piece in pieces_of(inputs)] == [{"blank": 2}]


def test_json_lines(tmp_path: Path) -> None:
    records = [
        {"body": "un\n\n deux ", "lang": "fr"},
        {"body": " \n", "lang": "fr"},
        {"body": "drei", "lang": "de"},
    ]
    (tmp_path / "part.jsonl").write_text("\n\n".join(json.dumps(record) for record in records))
    documents = read(tmp_path, options=TextOptions(text_field="body", language_field="lang"))
    assert documents == [("fr", ["un", "deux"]), ("de", ["drei"])]
    (tmp_path / "part.jsonl").rename(tmp_path / "part.es.json")
    assert {source for source, _ in read(tmp_path, options=TextOptions(text_field="body"))} == {"es"}


def test_pairs_in_json_lines(tmp_path: Path) -> None:
    records = [
        {"translation": {"en": "one", "fr": "un\nou une"}},
        {"en": "two", "fr": "deux", "id": 5},
        {"en": "", "fr": "trois"},
    ]
    (tmp_path / "books.en-fr.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert read(tmp_path) == [("en-fr", ["one", "un ou une"]), ("en-fr", ["two", "deux"])]
    (tmp_path / "books.en-fr.jsonl").rename(tmp_path / "fr-en.jsonl")
    assert read(tmp_path) == [("en-fr", ["one", "un ou une"]), ("en-fr", ["two", "deux"])]
    (tmp_path / "fr-en.jsonl").write_text('{"source": "un", "target": "one"}')
    options = TextOptions(pair_fields=("source", "target"))
    assert read(tmp_path, options=options) == [("en-fr", ["one", "un"])]


def test_pairs_in_columns(tmp_path: Path) -> None:
    rows = ["example.com\thttps://a\tOne.\thttps://b\tUn.", "", "example.com\tu\tTwo.\tv\tDeux. "]
    (tmp_path / "en_XX-fr_XX.tsv").write_text("\n".join(rows))
    options = TextOptions(columns=(3, 5))
    expected = [("en_XX-fr_XX", ["One.", "Un."]), ("en_XX-fr_XX", ["Two.", "Deux."])]
    assert read(tmp_path, options=options) == expected
    (tmp_path / "en_XX-fr_XX.tsv").rename(tmp_path / "fr-en.tsv")  # the first column is then French
    assert read(tmp_path, options=options) == [("en-fr", ["Un.", "One."]), ("en-fr", ["Deux.", "Two."])]
    with pytest.raises(
        UserError, match=r"fr-en\.tsv has 5 columns where 3 and 6 are wanted at line 1, .*--columns"
    ):
        read(tmp_path, options=TextOptions(columns=(3, 6)))


TMX = """<?xml version="1.0" encoding="UTF-8" ?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header creationdate="2020" srclang="en" adminlang="en" segtype="sentence"/>
  <body>
    <tu><tuv xml:lang="en"><seg>One &amp; only</seg></tuv><tuv xml:lang="fr"><seg>Un
        seul</seg></tuv></tu>
    <tu tuid="2"><prop type="x">y</prop>
      <tuv xml:lang="FR-ca"><seg>Le <bpt i="1">&lt;b&gt;</bpt>gros<ept i="1">x</ept> <hi>chat</hi></seg></tuv>
      <tuv xml:lang="en-US"><seg>The big cat</seg></tuv><tuv xml:lang="de"><seg>Die</seg></tuv></tu>
    <tu><tuv xml:lang="en"><seg>alone</seg></tuv></tu>
    <tu><tuv lang="en"><seg> </seg></tuv><tuv lang="fr"><seg>vide</seg></tuv></tu>
  </body></tmx>
"""


def test_tmx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "en-fr.tmx.gz").write_bytes(gzip.compress(TMX.encode()))
    expected = [("en-fr", ["One & only", "Un seul"]), ("en-fr", ["The big cat", "Le gros chat"])]
    assert read(tmp_path) == expected
    inputs, _ = understand([tmp_path], TextOptions())
    assert sum(parse(piece).left_out["blank"] for piece in pieces_of(inputs)) == 2
    for size in (1, 100, 333):
        monkeypatch.setattr(pieces, "PIECE_BYTES", size)
        assert read(tmp_path) == expected


def test_no_entity_is_ever_expanded(tmp_path: Path) -> None:
    evil = TMX.replace(
        '<!DOCTYPE tmx SYSTEM "tmx14.dtd">', '<!DOCTYPE tmx [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    ).replace("One &amp; only", "&x;")
    (tmp_path / "en-fr.tmx").write_text(evil)
    with pytest.raises(
        UserError, match=r"en-fr\.tmx is no TMX \(undefined entity.*\) at line 5, byte offset"
    ):
        read(tmp_path)
    assert read(tmp_path, damaged="skip") == [("en-fr", ["The big cat", "Le gros chat"])]


@pytest.mark.parametrize(("line", "offset"), [(0, 3), (50, 353)])
@pytest.mark.parametrize("compressed", [False, True])
def test_text_that_is_not_utf8_is_located(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: int, offset: int, compressed: bool
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 64)
    lines = [b"mot %02d" % number for number in range(100)]
    lines[line] = b"mot\xe9"
    content = b"\n".join(lines)
    name = "fr.txt.gz" if compressed else "fr.txt"
    (tmp_path / name).write_bytes(gzip.compress(content) if compressed else content)
    options = TextOptions(documents="lines")
    with pytest.raises(
        UserError, match=rf"is not UTF-8 at line {line + 1}, byte offset {offset}: convert it"
    ):
        read(tmp_path, options=options)
    kept = read(tmp_path, options=options, damaged="skip")
    assert [words for _, (words,) in kept] == [part.decode() for part in lines if part != b"mot\xe9"]


def test_damage_is_counted_and_the_rest_of_a_document_stays(tmp_path: Path) -> None:
    (tmp_path / "fr.txt").write_bytes(b"un\nd\xffeux\ntrois\n\nqu\xe9\n\ncinq\n")
    inputs, _ = understand([tmp_path], TextOptions())
    assert documents_of(inputs, "skip") == [("fr", ["un", "trois"]), ("fr", ["cinq"])]
    assert [parse(piece, "skip").left_out for piece in pieces_of(inputs)] == [{"damaged": 2}]


def test_the_one_bad_file_of_a_hundred_is_named(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"fr.{number}.txt").write_bytes(b"bon" if number != 61 else b"bon\nmauvais \xe9")
    with pytest.raises(UserError, match=r"fr\.61\.txt is not UTF-8 at line 2, byte offset 12:"):
        read(tmp_path)


def test_byte_offset_counts_the_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "fr.txt").write_bytes(b"\xef\xbb\xbfab\xff")
    with pytest.raises(UserError, match="line 1, byte offset 5:"):
        read(tmp_path)


def test_the_bad_side_of_a_pair_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.en").write_bytes(b"one\ntwo\nthree\n")
    (tmp_path / "train.fr").write_bytes(b"un\nd\xff\ntrois\n")
    with pytest.raises(UserError, match=r"train\.fr is not UTF-8 at line 2, byte offset 4:"):
        read(tmp_path)
    assert read(tmp_path, damaged="skip") == [("en-fr", ["one", "un"]), ("en-fr", ["three", "trois"])]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not a JSON object"),
        ("[1]", "is not a JSON object"),
        ('{"body": "x", "id": 1}', "has no field 'text', only body, id at .* with --text-field"),
        ('{"text": 5, "lang": "fr"}', "no text but int"),
        ('{"text": "x"}', "--language-field"),
        ('{"text": "x", "lang": "French"}', "the language 'French', which is none"),
        ('{"text": "\\ud800", "lang": "fr"}', "surrogate"),
        ("[" * 100_000, "is not a JSON object"),
        ("\udcff", "is not UTF-8"),
    ],
)
def test_bad_json_lines_are_located(tmp_path: Path, line: str, message: str) -> None:
    content = '{"text": "x", "lang": "fr"}\n' + line + '\n{"text": "y", "lang": "fr"}'
    (tmp_path / "part.jsonl").write_bytes(content.encode("utf-8", "surrogateescape"))
    options = TextOptions(language_field="lang")
    with pytest.raises(UserError, match=rf"part\.jsonl .*{message}") as caught:
        read(tmp_path, options=options)
    assert "at line 2, byte offset 28" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert read(tmp_path, options=options, damaged="skip") == [("fr", ["x"]), ("fr", ["y"])]
