"""The files of a split are found by their names, and what is not understood is told."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from text_files import write, write_zip

from deltalm_ds.downstream.finding import find_data
from deltalm_ds.downstream.options import ReadingOptions
from deltalm_ds.downstream.registry import find_task
from deltalm_ds.downstream.splits import SPLITS, Split, split_of
from deltalm_ds.errors import UserError


def found(
    *paths: Path, split: Split = "train", task: str = "translation"
) -> list[tuple[str, list[str], tuple[str, ...]]]:
    """Format, names and languages of the files that are found."""
    data = find_data(paths, find_task(task), split, ReadingOptions())
    return [(entry.format, [text.plain_name for text in entry.files], entry.languages) for entry in data]


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train.en", "train"),
        ("europarl.en", "train"),
        ("cmrc.zh.train.jsonl", "train"),
        ("test/train.en", "train"),
        ("training/a.xml", "train"),
        ("contest.en", "train"),
        ("latest/a.en", "train"),
        ("dev.en", "valid"),
        ("a_validation.jsonl", "valid"),
        ("DEV/1triples/a.xml", "valid"),
        ("dev/a_dev_challenge.xml", "valid"),
        ("val-2.x", "valid"),
        ("newsdev2016-src.en.sgm", "valid"),
        ("webnlg2017-dev/a.xml", "valid"),
        ("newstest2014-fren-ref.fr.sgm", "test"),
        ("generaltest2023.en-de.xml", "test"),
        ("test1.x", "test"),
        ("test/1/a.jsonl", "test"),
    ],
)
def test_names_tell_the_split(path: str, split: str) -> None:
    assert split_of(PurePosixPath(path)) == split


def test_a_folder_has_the_splits_that_its_names_tell(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for split in ("train", "dev", "test"):
        for ending in ("en", "fr"):
            write(folder / f"{split}.{ending}", "a\n")
        write(folder / f"more.en-fr.{split}.jsonl", "{}\n")
    for name in ("README.md", "readme.en", "LICENSE.en", "notes.txt", ".hidden.en", "papers/a.pdf"):
        write(folder / name, "no data")
    for split, word in zip(SPLITS, ("train", "dev", "test"), strict=True):
        assert sorted(found(folder, split=split)) == [
            ("aligned", [f"{word}.en", f"{word}.fr"], ()),
            ("jsonl", [f"more.en-fr.{word}.jsonl"], ("en", "fr")),
        ]


def test_a_folder_itself_may_tell_the_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "dev" / "a.jsonl", "{}\n")
    assert found(tmp_path / "dev", split="valid")
    monkeypatch.chdir(tmp_path / "dev")
    assert found(Path(), split="valid")
    with pytest.raises(UserError, match="no data for test"):
        found(tmp_path / "dev", split="test")


def test_a_named_file_is_of_any_split(tmp_path: Path) -> None:
    path = write(tmp_path / "test.fr.jsonl", "{}\n")
    for split in SPLITS:
        assert found(path, path, split=split) == [("jsonl", ["test.fr.jsonl"], ("fr",))]


def test_no_data_are_told_with_what_was_looked_for(tmp_path: Path) -> None:
    write(tmp_path / "notes.txt", "no data")
    with pytest.raises(
        UserError, match=r"no data for valid in .*: looked for \.jsonl, .* words valid, "
    ) as caught:
        found(tmp_path, split="valid")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("notes.txt", "not understood: data are"),
        ("absent.jsonl", "does not exist"),
        ("train.en", r"no partner: .* train\.en and train\.fr"),
        ("newstest.sgm", r"call it SET-src\.en\.sgm"),
        ("newstest-src.en.sgm", r"no partner: .* newstest-src\.en\.sgm and newstest-ref\.fr\.sgm"),
    ],
)
def test_named_files_that_are_not_understood_are_told(tmp_path: Path, name: str, expected: str) -> None:
    if name != "absent.jsonl":
        write(tmp_path / name, "a\n")
    with pytest.raises(UserError, match=expected):
        found(tmp_path / name)


def test_the_same_data_twice_are_told(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", "{}\n")
    write(tmp_path / "train.jsonl.gz", "{}\n")
    with pytest.raises(UserError, match="the same data twice"):
        found(tmp_path)


def test_a_zip_is_as_good_as_a_folder(tmp_path: Path) -> None:
    path = write_zip(
        tmp_path / "a.zip", {"x/train.en": "a", "x/train.fr": "b", "x/test.en": "c", "x/README": ""}
    )
    assert found(path) == [("aligned", ["train.en", "train.fr"], ())]
    with pytest.raises(UserError, match=r"test\.en has no partner"):
        found(path, split="test")
