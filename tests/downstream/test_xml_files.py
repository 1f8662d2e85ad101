"""WebNLG's and WMT's files are read as they are published, and hostile ones are refused in one line."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from downstream_examples import examples_of
from hypothesis import given
from hypothesis import strategies as st
from made_tasks import webnlg_xml
from text_files import COMPRESS, write, write_zip

from deltalm_ds.downstream import wmt, xml_files
from deltalm_ds.downstream.examples import DownstreamExample
from deltalm_ds.downstream.splits import SPLITS
from deltalm_ds.errors import UserError

ENTRY = ("Food", ["Bacon_(meat) | mainIngredient | Pork_&_salt", "A | b_c | D"], ["one <1>", "two"])
LINEARISED = "Bacon (meat) | mainIngredient | Pork & salt ; A | b c | D"
DATASET = """<?xml version="1.0" encoding="utf-8"?>
<dataset id="newstest"><collection id="general"><doc id="d1" origlang="en">
<src lang="en"><p><seg id="1">One &amp; two</seg></p><p><seg id="2">three</seg></p></src>
<ref lang="de" translator="A"><p><seg id="1">Eins
 &amp; zwei</seg><seg id="2">drei</seg></p></ref>
<ref lang="de" translator="B"><p><seg id="2">3</seg><seg id="1">1 &amp; 2</seg></p></ref>
<ref lang="fr" translator="A"><p><seg id="1">un &amp; deux</seg><seg id="2">trois</seg></p></ref>
<hyp system="x" lang="de"><p><seg id="1">no</seg></p></hyp>
</doc></collection></dataset>
"""
SOURCES = """<!DOCTYPE srcset SYSTEM "ftp://example.org/mteval.dtd">
<srcset setid="t" srclang="any">
<doc sysid="ref" docid="bbc/1" genre="news" origlang="en">
<hl>
<seg id="1">AT&T &amp; "us" &#233;&#x20AC; &#xD800; &copy</seg>
</hl>
<p>
<SEG ID=2> a < b
 and c </SEG>
</p>
</DOC>
<doc docid="bbc/2"><seg id="1">x</seg></doc>
</srcset>
"""
REFERENCES = """<refset trglang="fr"><doc docid="bbc/2"><seg id="1">y</seg></doc>
<doc docid="bbc/1"><seg id="2">b</seg><seg id="1">a</seg></doc></refset>
"""


def write_tar(path: Path, members: dict[str, str], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content.encode())
            archive.addfile(header, io.BytesIO(content.encode()))
    return path


def complaint(path: Path, *others: Path, task: str = "data-to-text", **options: str) -> str:
    with pytest.raises(UserError) as caught:
        examples_of(path, *others, task=task, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert path.name in message
    return message


@pytest.mark.parametrize("suffix", COMPRESS)
def test_webnlg_has_an_example_of_every_entry(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.xml{suffix}", webnlg_xml([ENTRY]))
    expected = DownstreamExample(LINEARISED, ("one <1>", "two"), "en", "en", "Id1", "Food")
    assert examples_of(path, task="data-to-text") == [expected]
    (with_category,) = examples_of(path, task="data-to-text", source_template="{category}: {triples}")
    assert with_category.source == f"Food: {LINEARISED}"


def test_webnlg_has_an_example_of_every_language(tmp_path: Path) -> None:
    content = webnlg_xml([ENTRY]).replace("</entry>", '<lex lang="ru">один</lex><lex>three</lex></entry>')
    path = write(tmp_path / "a.xml", content)
    english, russian = examples_of(path, task="data-to-text", split="test")
    assert english.targets == ("one <1>", "two", "three")
    assert (russian.source, russian.targets, russian.direction) == (LINEARISED, ("один",), "en-ru")
    left_out: Counter[str] = Counter()
    assert examples_of(path, task="data-to-text", target_language="ru", left_out=left_out) == [russian]
    assert left_out == {"other language": 1}


def test_triples_have_three_parts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", webnlg_xml([ENTRY, ("Food", ["A | b"], ["t"])]))
    assert "entry 2, has the triple 'A | b', which is not S | p | O" in complaint(path)
    assert "entry 1, has no <mtriple>" in complaint(write(path, webnlg_xml([("Food", [], ["t"])])))
    assert "has no <entry>" in complaint(write(path, webnlg_xml([])))


def test_wmt_xml_has_an_example_of_every_segment_and_language(tmp_path: Path) -> None:
    path = write(tmp_path / "newstest2021.en-de.xml", DATASET)
    assert examples_of(path, split="test", target_language="de") == [
        DownstreamExample("One & two", ("Eins & zwei", "1 & 2"), "en", "de", "d1:1"),
        DownstreamExample("three", ("drei", "3"), "en", "de", "d1:2"),
    ]
    assert [example.direction for example in examples_of(path)] == ["en-de", "en-fr"] * 2


def test_wmt_xml_without_sides_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", DATASET.replace('<seg id="2">3</seg>', ""))
    assert "segment 2, d1:2, has no reference" in complaint(path, task="translation")
    write(path, DATASET.replace('<src lang="en">', "<src>"))
    assert "the document 'd1' has no <src lang=…>" in complaint(path, task="translation")
    write(path, DATASET.replace('lang="de"', 'lang="german"'))
    assert "names the language 'german'" in complaint(path, task="translation")


def test_sgml_is_read_though_no_parser_would(tmp_path: Path) -> None:
    write(tmp_path / "newstest2014-enfr-src.en.sgm.gz", SOURCES)
    write(tmp_path / "newstest2014-enfr-ref.fr.sgm", REFERENCES)
    expected = [
        DownstreamExample('AT&T & "us" é€ &#xD800; &copy', ("a",), "en", "fr", "bbc/1:1"),
        DownstreamExample("a < b and c", ("b",), "en", "fr", "bbc/1:2"),
        DownstreamExample("x", ("y",), "en", "fr", "bbc/2:1"),
    ]
    assert examples_of(tmp_path, split="test") == expected
    assert examples_of(*tmp_path.iterdir(), split="test") == expected


def test_sgml_may_have_several_references_and_directions(tmp_path: Path) -> None:
    write(tmp_path / "test-src.en.sgm", SOURCES)
    write(tmp_path / "test-ref.fr.sgm", REFERENCES + REFERENCES.replace(">y<", ">z<"))
    write(tmp_path / "test-src.fr.sgm", REFERENCES.replace("refset", "srcset"))
    write(tmp_path / "test-ref.en.sgm", SOURCES.replace("srcset", "refset"))
    read = examples_of(tmp_path, split="test")
    assert [example.direction for example in read] == ["en-fr"] * 3 + ["fr-en"] * 3
    assert read[2].targets == ("y", "z")
    assert examples_of(tmp_path, split="test", source_language="fr") == read[3:]


@pytest.mark.parametrize(
    ("sources", "references", "expected"),
    [
        (SOURCES.replace("</seg>\n</hl>", "\n</hl>"), REFERENCES, "line 5, has a <seg> without an end"),
        (SOURCES[: SOURCES.index("</SEG>")], REFERENCES, "src.en.sgm ends within a <seg>"),
        ("nothing", REFERENCES, "src.en.sgm has no <seg>"),
        (SOURCES, REFERENCES.replace("bbc/2", "bbc/3"), "segment 3, bbc/2:1, is not in"),
        (SOURCES.replace("bbc/2", "b\x1b[1mc\n"), REFERENCES, r"segment 3, b\x1b[1mc\n:1, is not in"),
        (SOURCES.replace('<seg id="1">x</seg>', ""), REFERENCES, "the segment bbc/2:1 is not in"),
        ("\n\xe9".encode("latin-1"), REFERENCES, "line 2, is not UTF-8"),
    ],
)
def test_broken_sgml_is_told(tmp_path: Path, sources: str | bytes, references: str, expected: str) -> None:
    source = write(tmp_path / "t-src.en.sgm", sources)
    reference = write(tmp_path / "t-ref.fr.sgm", references)
    assert expected in complaint(source, reference, task="translation")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<benchmark><entries>", "is no XML (no element found: line 1"),
        ("<benchmark>\n<entry></benchmark>", "is no XML (mismatched tag: line 2"),
        ("", "is no XML"),
        (b"<benchmark>\xff</benchmark>", "is no XML"),
        ('<?xml version="1.0" encoding="big5"?><benchmark/>', "encoding"),
        ('<?xml version="1.0" encoding="nonsense"?><benchmark/>', "encoding"),
        ("<tmx/>", "begins with <tmx>, which is neither WebNLG (<benchmark>) nor WMT (<dataset>)"),
        ('<!DOCTYPE b [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><benchmark>&b;</benchmark>', "defines entities"),
        (
            '<!DOCTYPE b [<!ENTITY a SYSTEM "file:///etc/passwd">]><benchmark>&a;</benchmark>',
            "defines entities",
        ),
    ],
)
def test_broken_and_hostile_xml_is_refused(tmp_path: Path, content: str | bytes, expected: str) -> None:
    assert expected in complaint(write(tmp_path / "a.xml", content))


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xml_files, "MAX_XML_BYTES", 2_000)
    monkeypatch.setattr(wmt, "MAX_SGML_BYTES", 2_000)
    monkeypatch.setattr(xml_files, "MAX_TAR_BYTES", 100_000)
    small, large = webnlg_xml([ENTRY]), webnlg_xml([ENTRY] * 10)
    assert "more than 2,000 bytes" in complaint(write(tmp_path / "a.xml.gz", large))
    archive = write_tar(tmp_path / "a.tar.gz", {"train/a.xml": small, "train/b.xml": large}, "w:gz")
    with pytest.raises(UserError, match=r"train/b\.xml has more than 2,000 bytes"):
        examples_of(archive, task="data-to-text")
    archive = write_tar(tmp_path / "b.tar.gz", {"train/a.xml": small, "x": " " * 100_000}, "w:gz")
    assert "more than 100,000 bytes" in complaint(archive)
    source = write(tmp_path / "t-src.en.sgm", SOURCES + " " * 2_000)
    assert "more than 2,000 bytes" in complaint(source, write(tmp_path / "t-ref.fr.sgm", REFERENCES))


def test_what_stands_before_a_member_is_bounded(tmp_path: Path) -> None:
    header = tarfile.TarInfo("a")
    header.type, header.size = tarfile.XHDTYPE, (8 << 30) - 1
    path = write(tmp_path / "a.tar.gz", header.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20))
    assert "no whole .tar (a header of 8,589,934,591 bytes)" in complaint(path)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_archives_are_as_good_as_folders(tmp_path: Path, suffix: str) -> None:
    contents = {split: webnlg_xml([(split, ["a | b | c"], ["t"])]) for split in SPLITS}
    members = {f"release/{split}/1triples/a.xml": content for split, content in contents.items()}
    tar = write_tar(tmp_path / "plain" / "webnlg.tar", {**members, "release/README.md": "no data"})
    compressed = write(tmp_path / f"webnlg.tar{suffix}", tar.read_bytes())
    packed = write_zip(tmp_path / "webnlg.zip", members)
    for split in SPLITS:
        for path in (compressed, compressed.parent / "plain", packed):
            (example,) = examples_of(path, task="data-to-text", split=split)
            assert example.group == split


@given(st.floats(0, 1, exclude_max=True))
def test_damaged_archives_are_told(tmp_path_factory: pytest.TempPathFactory, part: float) -> None:
    folder = tmp_path_factory.mktemp("tar")
    text = webnlg_xml([ENTRY])
    content = write_tar(folder / "a.tar", {"a.xml": text}).read_bytes()
    packed = gzip.compress(content)
    cut = write(folder / "cut.tar", content[: int(part * (512 + len(text)))])
    cut_packed = folder / "packed.tar.gz"
    cut_packed.write_bytes(packed[: int(part * len(packed) / 2)])
    for path in (cut, cut_packed):
        assert "fetch it again" in complaint(path)
