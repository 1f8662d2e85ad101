"""Documents and pairs from files of the shapes that corpora come in, and damage to them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from text_files import COMPRESS, inputs_of, left_out, pieces_of, read, write, write_zip

from deltalm_ds.errors import UserError
from deltalm_ds.text import pieces
from deltalm_ds.text.inputs import TextOptions
from deltalm_ds.text.readers import parse

LINES = TextOptions(documents="lines")
TMX = """<?xml version="1.0" encoding="UTF-8" ?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4">
<header creationdate="Tue Jan 29 2019" srclang="en" adminlang="en" o-tmf="unknown" segtype="sentence"
  creationtool="Uplug" creationtoolversion="unknown" datatype="PlainText" />
  <body>
    <tu>
      <tuv xml:lang="en"><seg>One &amp; only</seg></tuv>
      <tuv xml:lang="fr"><seg>Un  seul</seg></tuv>
    </tu>
    <tu tuid="2">
      <tuv xml:lang="fr"><seg>deux</seg></tuv>
      <tuv xml:lang="en-US"><seg>two <bpt i="1">&lt;b&gt;</bpt>bold<ept i="1"/></seg></tuv>
    </tu>
    <tu><tuv xml:lang="en"><seg>without a partner</seg></tuv></tu>
  </body>
</tmx>
"""


def test_blocks_between_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "fr.txt", "\ufeff\r\n un \r\ndeux\r\n\r\n  \r\n\u00a0\ntrois\n\n\nquatre")
    assert read(inputs_of(path)) == [("fr", ["un", "deux"]), ("fr", ["trois"]), ("fr", ["quatre"])]


def test_a_document_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "fr.txt", "\ufeffun\n\ndeux \r\n \ntrois")
    assert read(inputs_of(path, options=LINES)) == [("fr", ["un"]), ("fr", ["deux"]), ("fr", ["trois"])]


def test_cc100(tmp_path: Path) -> None:
    path = write(tmp_path / "gu.txt.xz", "એક\nબે\n\nત્રણ\n\n")
    assert read(inputs_of(path)) == [("gu", ["એક", "બે"]), ("gu", ["ત્રણ"])]


def test_ccnet(tmp_path: Path) -> None:
    records = [
        {
            "url": "http://x/1",
            "length": 7,
            "nlines": 2,
            "title": "T",
            "raw_content": "un\ndeux",
            "language": "fr",
        },
        {"url": "http://x/2", "raw_content": "trois\n\n quatre\n", "perplexity": 255.1, "language": "fr"},
    ]
    path = write(tmp_path / "ccnet.fr.json.gz", "".join(json.dumps(record) + "\n" for record in records))
    inputs = inputs_of(path, options=TextOptions(text_field="raw_content"))
    assert read(inputs) == [("fr", ["un", "deux"]), ("fr", ["trois", "quatre"])]


def test_wikipedia(tmp_path: Path) -> None:
    record = {"id": "7", "revid": "1", "url": "https://x?curid=7", "title": "É", "text": "É\n\nÉtant"}
    path = write(tmp_path / "wiki.fr.jsonl", json.dumps(record, ensure_ascii=False) + "\r\n\n")
    assert read(inputs_of(path)) == [("fr", ["É", "Étant"])]


def test_json_lines_that_name_their_language(tmp_path: Path) -> None:
    records = [{"body": "un", "lang": "fr"}, {"body": " \n", "lang": "fr"}, {"body": "drei", "lang": "de"}]
    path = write(tmp_path / "part.jsonl", "\ufeff" + "\n\n".join(map(json.dumps, records)))
    inputs = inputs_of(path, options=TextOptions(text_field="body", language_field="lang"))
    assert read(inputs) == [("fr", ["un"]), ("de", ["drei"])]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("en-fr.tsv.xz", "one\tun\t1.2"),  # CCAligned's sentences
        ("fr-en.tsv", " un \tone\r"),
        ("books.en-fr.jsonl", '{"id": 1, "en": "one", "fr": "un"}'),
        ("fr-en.jsonl.zst", '{"translation": {"en": "one", "fr": " un\\n"}}'),
    ],
)
def test_pairs_a_line(tmp_path: Path, name: str, line: str) -> None:
    path = write(tmp_path / name, f"{line}\n\n{line}")
    assert read(inputs_of(path)) == [("en-fr", ["one", "un"])] * 2


def test_ccaligned_documents(tmp_path: Path) -> None:
    line = "x.org\thttps://x.org/en\tone | two\thttps://x.org/fr\tun | deux"
    path = write(tmp_path / "en_XX-fr_XX.tsv.xz", f"{line}\n{line.replace('one | two', '')}\n")
    inputs = inputs_of(path, options=TextOptions(columns=(3, 5)))
    assert read(inputs) == [("en_XX-fr_XX", ["one | two", "un | deux"])]
    assert left_out(inputs) == {"blank": 1}


def test_pair_fields_follow_the_languages_in_the_name(tmp_path: Path) -> None:
    options = TextOptions(pair_fields=("source", "target"))
    for name in ("fr-en.jsonl", "en-fr.jsonl"):
        path = write(tmp_path / name, '{"source": "un", "target": "one"}')
        expected = ["one", "un"] if name == "fr-en.jsonl" else ["un", "one"]
        assert read(inputs_of(path, options=options)) == [("en-fr", expected)]


def test_opus_moses(tmp_path: Path) -> None:
    members = {
        "README": "about",
        "LICENSE": "rights",
        "Books.en-fr.en": "one\ntwo\n\n",
        "Books.en-fr.fr": "un\ndeux\ntrois\n",
        "Books.en-fr.xml": "<linkGrp/>",
        "Books.en-fr.ids": "1\t1",
    }
    inputs = inputs_of(write_zip(tmp_path / "en-fr.txt.zip", members))
    assert read(inputs) == [("en-fr", ["one", "un"]), ("en-fr", ["two", "deux"])]
    assert left_out(inputs) == {"blank": 1}


@pytest.mark.parametrize("header", [TMX, TMX.replace('<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n', "")])
def test_opus_tmx(tmp_path: Path, header: str) -> None:
    inputs = inputs_of(write(tmp_path / "en-fr.tmx.gz", header))
    assert read(inputs) == [("en-fr", ["One & only", "Un seul"]), ("en-fr", ["two bold", "deux"])]
    assert left_out(inputs) == {"blank": 1}
    swapped = inputs_of(write(tmp_path / "x" / "fr-en.tmx", header))
    assert read(swapped) == read(inputs)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_one_folder_of_all_kinds(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"fr.txt{suffix}", "un\n\ndeux")
    write(tmp_path / f"de.jsonl{suffix}", '{"text": "ein Satz"}')
    write(tmp_path / f"a.en{suffix}", "one\n")
    write(tmp_path / "a.de", "eins\n")
    write_zip(tmp_path / "more.zip", {"deep/er/es.txt": "uno", "notes.csv": "1,2"})
    assert read(inputs_of(tmp_path)) == [
        ("de-en", ["eins", "one"]),
        ("de", ["ein Satz"]),
        ("es", ["uno"]),
        ("fr", ["un"]),
        ("fr", ["deux"]),
    ]


def test_pairs_with_a_blank_side_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "train.fr", "un\n\ntrois\nquatre\n")
    write(tmp_path / "train.en", "one\ntwo\n \nfour")
    assert read(inputs_of(tmp_path)) == [("en-fr", ["one", "un"]), ("en-fr", ["four", "quatre"])]
    assert left_out(inputs_of(tmp_path)) == {"blank": 2}


def test_a_byte_order_mark_alone_is_a_blank_line(tmp_path: Path) -> None:
    write(tmp_path / "train.en", "\ufeff")
    write(tmp_path / "train.fr", "un")
    assert left_out(inputs_of(tmp_path)) == {"blank": 1}


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".txt.zst"])
@pytest.mark.parametrize(("line", "offset"), [(0, 3), (50, 353)])
def test_text_that_is_not_utf8_is_located(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: int, offset: int, suffix: str
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 64)
    lines = [b"mot %02d" % number for number in range(100)]
    lines[line] = b"mot\xe9"
    inputs = inputs_of(write(tmp_path / f"fr{suffix}", b"\n".join(lines)), options=LINES)
    where = rf"fr\{suffix} is not UTF-8 at line {line + 1}, byte offset {offset}: .*--damaged skip"
    with pytest.raises(UserError, match=where):
        read(inputs)
    good = [text.decode() for number, text in enumerate(lines) if number != line]
    assert read(inputs, "skip") == [("fr", [text]) for text in good]
    assert left_out(inputs, "skip") == {"damaged": 1}


def test_a_damaged_line_leaves_the_rest_of_its_document(tmp_path: Path) -> None:
    inputs = inputs_of(write(tmp_path / "fr.txt", b"un\nd\xff\ntrois\n\n\xff\n\nquatre\n"))
    assert read(inputs, "skip") == [("fr", ["un", "trois"]), ("fr", ["quatre"])]
    assert left_out(inputs, "skip") == {"damaged": 2}


def test_byte_offset_counts_the_byte_order_mark(tmp_path: Path) -> None:
    inputs = inputs_of(write(tmp_path / "fr.txt", b"\xef\xbb\xbfab\xff"))
    with pytest.raises(UserError, match="line 1, byte offset 5:"):
        read(inputs)


def test_the_bad_side_of_pairs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 8)
    write(tmp_path / "train.en", b"one\ntwo\n\xff\nfour\n")
    write(tmp_path / "train.fr.xz", b"un\nd\xff\ntr\xff\nquatre\n")
    with pytest.raises(UserError, match=r"train\.fr\.xz is not UTF-8 at line 2, byte offset 4:"):
        read(inputs_of(tmp_path))
    assert read(inputs_of(tmp_path), "skip") == [("en-fr", ["one", "un"]), ("en-fr", ["four", "quatre"])]
    assert left_out(inputs_of(tmp_path), "skip") == {"damaged": 2}  # pairs


def test_the_bad_one_of_a_hundred_files_is_named(tmp_path: Path) -> None:
    for number in range(100):
        write(tmp_path / f"{number:02}.fr.txt.gz", "un\n\ndeux\n" if number != 61 else b"un\n\n\xff")
    with pytest.raises(UserError, match=r"61\.fr\.txt\.gz is not UTF-8 at line 3, byte offset 4:"):
        read(inputs_of(tmp_path))
    assert len(read(inputs_of(tmp_path), "skip")) == 199


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not a JSON object on one line at"),
        ("[1]", "is not a JSON object"),
        ('"text"', "is not a JSON object"),
        ('{"text": "x"} {}', "is not a JSON object"),
        (
            '{"body": "x", "a: b\\n": 1}',
            r"has no field 'text', only 'a: b\\n', 'body' at .*: name .*--text-field",
        ),
        ('{"text": 5, "lang": "fr"}', "no text but int at"),
        ('{"text": null, "lang": "fr"}', "no text but NoneType at"),
        ('{"text": "x"}', "--language-field"),
        ('{"text": "x", "lang": "French: x"}', "names the language 'French: x', which is none at"),
        ('{"text": "\\ud800", "lang": "fr"}', "surrogate"),
        ("[" * 100_000, "is not a JSON object"),
        ('{"text": ' + "9" * 5000 + "}", "is not a JSON object"),
    ],
)
def test_bad_json_lines_are_located(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    good = '{"text": "x", "lang": "fr"}\n'
    path = write(tmp_path / "part.jsonl", good * 3 + line + "\n" + good)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 30)
    inputs = inputs_of(path, options=TextOptions(language_field="lang"))
    with pytest.raises(UserError, match=message) as caught:
        read(inputs)
    assert str(caught.value).startswith(f"{path} ")
    assert f" at line 4, byte offset {3 * len(good)}: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert read(inputs, "skip") == [("fr", ["x"])] * 4
    assert left_out(inputs, "skip") == {"damaged": 1}


def test_a_line_that_lacks_a_column(tmp_path: Path) -> None:
    inputs = inputs_of(write(tmp_path / "en-fr.tsv", "a\tb\tc\na\tb\n"), options=TextOptions(columns=(1, 3)))
    with pytest.raises(
        UserError, match=r"has 2 columns where 1 and 3 are wanted at line 2, byte offset 6: name"
    ):
        read(inputs)
    assert read(inputs, "skip") == [("en-fr", ["a", "c"])]


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        ("<tu><tuv xml:lang='en'><seg>&nbsp;</seg></tuv></tu>", "undefined entity"),
        ("<tu><tuv></tu>", "mismatched tag"),
        ("<tu>" + "<hi>" * 2, ""),  # without an end, it takes the next unit with it
        ("<tu><tuv xml:lang='en'><seg>" + "<hi>" * 5000 + "</hi>" * 5000 + "</seg></tuv></tu>", ""),
        (b"<tu>\xff</tu>", "utf-8"),
    ],
)
def test_bad_units_are_located(tmp_path: Path, damage: str | bytes, what: str) -> None:
    before, after = TMX.split("    <tu>\n", 1)
    content = b"".join(
        text if isinstance(text, bytes) else text.encode() for text in (before, damage, "<tu>\n", after)
    )
    inputs = inputs_of(write(tmp_path / "en-fr.tmx", content))
    with pytest.raises(UserError, match=rf"is no TMX .*{what}.* at line 7, byte offset {len(before)}: "):
        read(inputs)
    assert read(inputs, "skip")[-1] == ("en-fr", ["two bold", "deux"])
    assert left_out(inputs, "skip") == {"damaged": 1, "blank": 1}


def test_a_unit_that_is_cut_off_is_told(tmp_path: Path) -> None:
    place = TMX.index('<tuv xml:lang="en-US">')
    inputs = inputs_of(write(tmp_path / "en-fr.tmx", TMX[:place]))
    with pytest.raises(UserError, match=r"is no TMX .* at line 11, "):
        read(inputs)
    assert read(inputs, "skip") == [("en-fr", ["One & only", "Un seul"])]


def test_sources_of_a_piece_are_told_apart(tmp_path: Path) -> None:
    records = [{"text": f"{number}", "l": "fr" if number % 3 else "de"} for number in range(9)]
    path = write(tmp_path / "part.jsonl", "\n".join(map(json.dumps, records)))
    (piece,) = pieces_of(inputs_of(path, options=TextOptions(language_field="l")))
    german, french = parse(piece).documents
    assert (german.source, german.languages, german.lines) == ("de", ("de",), ["0", "3", "6"])
    assert (french.source, len(french), french.num_lines) == ("fr", 6, [1] * 6)
