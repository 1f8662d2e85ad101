"""Pictures of a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest

from deltalm_ds.data.fertility import Fertility
from deltalm_ds.data.lengths import LengthSummary
from deltalm_ds.data.manifest import Kind
from deltalm_ds.data.pictures import draw_pictures
from deltalm_ds.data.summary import SourceSummary
from deltalm_ds.demo import PAIRS
from deltalm_ds.demo.languages import LANGUAGES

SVG = "{http://www.w3.org/2000/svg}"


def summary(
    name: str, kind: Kind = "monolingual", tokens: int = 1000, share: float = 0.5, empty: bool = False
) -> SourceSummary:
    lengths = LengthSummary(
        mean=80.0, quantiles=(10.0, 30.0, 50.0, 90.0, 300.0), longest=2000, is_sampled=False
    )
    return SourceSummary(
        name=name,
        kind=kind,
        num_documents=0 if empty else 1234,
        num_tokens=0 if empty else tokens,
        token_share=0.0 if empty else share,
        sample_share=0.0 if empty else share,
        lengths=None if empty else lengths,
    )


SUMMARIES = [
    summary("zh", tokens=5_300_000, share=0.09),
    summary("fr", tokens=45_600_000, share=0.9),
    summary("gu", empty=True),
    summary("en-fr", "pairs", 987, 0.01),
]
FERTILITY = [Fertility("fr", 400, 1600, 250, 1), Fertility("zh", 300, 400, 9, 0)]


def texts(path: Path) -> list[str]:
    """All texts of a picture, which has to be SVG, in their order."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == f"{SVG}svg"
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def in_order(found: Sequence[str], expected: Sequence[str]) -> bool:
    return [text for text in found if text in expected] == list(expected)


def test_texts(tmp_path: Path) -> None:
    folder = tmp_path / "new/pictures"
    drawn = draw_pictures(folder, SUMMARIES, FERTILITY)
    assert drawn == [folder / f"{name}.svg" for name in ("languages", "lengths", "fertility")]
    languages, lengths, fertility = map(texts, drawn)
    order = ["monolingual", "fr", "zh", "gu", "pairs", "en-fr"]  # by size within each kind
    assert in_order(languages, order)
    assert in_order(lengths, order)
    assert {"45.6 M", "5.3 M", "0", "987", "1 %", "share", "share of all tokens"} <= set(languages)
    assert {"1.23 k", "median", "longest", "1,000", "tokens of a document or a pair"} <= set(lengths)
    assert in_order(fertility, ["zh", "fr"])  # the most tokens a character first
    assert {"0.75", "0.25", "1.60", "0.25%", "tokens per word", "tokens per character"} <= set(fertility)
    assert fertility.count(" written without spaces") == 1


def test_equal_numbers_give_equal_bytes(tmp_path: Path) -> None:
    """Whatever the user's own settings of matplotlib are."""
    first = [path.read_bytes() for path in draw_pictures(tmp_path / "first", SUMMARIES, FERTILITY)]
    with matplotlib.rc_context({"font.size": 20, "svg.hashsalt": None, "xtick.major.size": 20}):
        second = [path.read_bytes() for path in draw_pictures(tmp_path / "second", SUMMARIES, FERTILITY)]
    assert first == second
    assert not any(b"<dc:date>" in content for content in first)


@pytest.mark.parametrize("count", [1, 200])
def test_each_source_has_a_row_of_the_same_height(tmp_path: Path, count: int) -> None:
    names = [f"q{number:03}" for number in range(count)]
    summaries = [summary(name, share=0.5**number) for number, name in enumerate(names)]
    languages, lengths = draw_pictures(tmp_path, summaries, [])
    for picture in (languages, lengths):
        assert set(names) <= set(texts(picture))
        height = float(ElementTree.parse(picture).getroot().attrib["height"].removesuffix("pt"))
        assert 72 * 0.19 * count < height < 72 * (0.19 * count + 2)


def test_names_are_not_markup(tmp_path: Path) -> None:
    for picture in draw_pictures(tmp_path, [summary("$a_b$<&")], [Fertility("$a_b$<&", 4, 9, 2)]):
        assert "$a_b$<&" in texts(picture)


def test_the_documents_show_the_embedded_sample() -> None:
    """`make docs` drew it; other versions of matplotlib draw other bytes."""
    found = texts(Path(__file__).parent.parent.parent / "docs/demo_languages.svg")
    pairs = {"-".join(sorted(pair)) for pair in PAIRS}
    assert {*LANGUAGES, *pairs} <= set(found)
