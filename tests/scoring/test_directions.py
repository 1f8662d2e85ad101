"""Manifests of directions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deltalm_ds.errors import UserError
from deltalm_ds.scoring.directions import Direction, directions_of
from deltalm_ds.scoring.settings import ScoreSettings

ENTRY = {"source_language": "fr", "target_language": "en", "hypotheses": "out", "references": ["gold"]}


def read(path: Path, content: str) -> list[Direction]:
    path.write_text(content, encoding="utf-8")
    return directions_of(ScoreSettings(manifest=path))


def test_yaml_and_json_are_the_same(tmp_path: Path) -> None:
    yaml = """
        directions:
          - {source_language: fr, target_language: en, hypotheses: out, references: [gold]}
          - source_language: en
            target_language: no
            hypotheses: other/out
            references: [/gold/one, two]
            sources: sources
            baseline: earlier
            groups: groups
            seen: seen
            name: naïve
    """
    more = {
        **{"source_language": "en", "target_language": "no", "hypotheses": "other/out"},
        **{"references": ["/gold/one", "two"], "sources": "sources", "baseline": "earlier"},
        **{"groups": "groups", "seen": "seen", "name": "naïve"},
    }
    first, second = read(tmp_path / "manifest.yaml", yaml)
    content = json.dumps({"directions": [ENTRY, more]}, indent=2)
    assert read(tmp_path / "manifest.json", content) == [first, second]
    assert (first.name, first.hypotheses, first.sources) == ("fr-en", tmp_path / "out", None)
    assert (second.name, second.language) == ("naïve", "no")
    assert second.references == (Path("/gold/one"), tmp_path / "two")
    assert second.seen == tmp_path / "seen"
    assert [first.to_english, first.from_english] == [True, False]
    assert [second.to_english, second.from_english] == [False, True]


@pytest.mark.parametrize(
    ("source", "target", "sides"),
    [("en_XX", "fr", (False, True)), ("eng", "en", (False, False)), ("fr", "de", (False, False))],
)
def test_sides_of_english(tmp_path: Path, source: str, target: str, sides: tuple[bool, bool]) -> None:
    entry = {**ENTRY, "source_language": source, "target_language": target}
    (direction,) = read(tmp_path / "m.json", json.dumps({"directions": [entry]}))
    assert (direction.to_english, direction.from_english) == sides


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_language": "english"}, "directions.0: .*'english' is no language"),
        ({"references": []}, "directions.0.references: "),
        ({"reference": "x"}, "directions.0.reference: "),
        ({"seen": "x"}, "name groups too"),
    ],
)
def test_wrong_entries(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path / "m.json", json.dumps({"directions": [{**ENTRY, **change}]}))


def test_names_differ(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="direction fr-en twice"):
        read(tmp_path / "m.json", json.dumps({"directions": [ENTRY, ENTRY]}))
