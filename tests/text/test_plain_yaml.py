"""YAML of plain data, and what is refused of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deltalm_ds.errors import UserError
from deltalm_ds.text.plain_yaml import read_yaml


def loaded(folder: Path, text: str) -> Any:
    path = folder / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return read_yaml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: {b: [c, 1, -2, 2.5, 1e3, true, false]}", {"a": {"b": ["c", 1, -2, 2.5, 1000.0, True, False]}}),
        (
            "[no, yes, on, True, ~, null, 2001-01-01, .inf]",
            ["no", "yes", "on", "True", "~", "null", "2001-01-01", ".inf"],
        ),
        ("[0x_, 0b_, 089, 1_000, 1:30, =, <<]", ["0x_", "0b_", "089", "1_000", "1:30", "=", "<<"]),
        ("['1', \"true\"]", ["1", "true"]),
        ("a:", {"a": ""}),
        ("1" * 5_000, "1" * 5_000),
        ("no: 1\n", {"no": 1}),
        ("<<: {a: 1}\nb: 2", {"<<": {"a": 1}, "b": 2}),
    ],
)
def test_plain_data_are_read_and_nothing_is_guessed(tmp_path: Path, text: str, value: object) -> None:
    found = loaded(tmp_path, text)
    assert found == value
    assert repr(found) == repr(value)  # 1 is no true


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{[a]: b}", "a key is no text"),
        ("{[]: a, []: b}", "a key is no text"),
        ("{? {a: b} : c}", "a key is no text"),
        ("{a: b, c: d, a: b}", "the key 'a' is there twice"),
        ("{x: {a: b, 'a': c}}", "the key 'a' is there twice"),
        ("{<<: {}, <<: {}}", "the key '<<' is there twice"),
        ("[&a b, *a]", "aliases are not allowed"),
        ("&a [*a]", "aliases are not allowed"),
        ("!!int x", "tags are not allowed"),
        ("!!timestamp x", "tags are not allowed"),
        ("! x", "tags are not allowed"),
        ("!!set {a}", "tags are not allowed"),
        ("{a: b", "while parsing a flow mapping"),
        ("a: b: c", "mapping values are not allowed here"),
        ("--- a\n--- b", "but found another document"),
        ("\x07", "unacceptable character"),
        ("[" * 3_000, "is nested too deeply"),
        ("{a: " * 3_000, "is nested too deeply"),
        ("- " * 3_000, "is nested too deeply"),
        ("# " + "x" * (1 << 20), "has more than 1,048,576 bytes"),
    ],
    ids=range(20),
)
def test_the_rest_of_yaml_is_refused_in_one_line(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        loaded(tmp_path, text)
    assert reason in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("tag", ["object/apply:os.system", "object/new:os.system", "name:os.system"])
def test_python_tags_are_not_executed(tmp_path: Path, tag: str) -> None:
    marker = tmp_path / "executed"
    with pytest.raises(UserError, match="tags are not allowed"):
        loaded(tmp_path, f"a: !!python/{tag} ['touch {marker}']")
    assert not marker.exists()


def test_aliases_cannot_stand_for_a_huge_file(tmp_path: Path) -> None:
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    with pytest.raises(UserError, match="aliases are not allowed"):
        loaded(tmp_path, "\n".join(["a0: &a0 [x]", *levels]))


@pytest.mark.parametrize("name", ["missing.yaml", "folder.yaml", "latin.yaml"])
def test_what_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(UserError, match=f"^.*{name}.*(name a file|not YAML).*$"):
        read_yaml(tmp_path / name)
