"""Files and folders are whole or absent."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from deltalm_ds import files


def test_text_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text_atomically(path, "old")
    files.write_text_atomically(path, "né\n")
    assert path.read_bytes() == "né\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_leaves_the_old_file_and_nothing_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    files.write_bytes_atomically(path, b"old")

    def fail() -> None:
        with files.atomic_writer(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_seen_before_the_end(tmp_path: Path) -> None:
    with files.atomic_writer(tmp_path / "a") as file:
        file.write(b"half")
        file.flush()
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").exists()


def test_hash_and_its_progress(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(content)
    seen: list[int] = []
    assert files.sha256_of(tmp_path / "a", seen.append) == hashlib.sha256(content).hexdigest()
    assert sum(seen) == len(content)
    assert len(seen) > 1


@pytest.mark.parametrize("existing", [False, True])
def test_folder_aside_replaces(tmp_path: Path, existing: bool) -> None:
    target = tmp_path / "deep" / "data"
    if existing:
        target.mkdir(parents=True)
        (target / "old").touch()
    with files.folder_aside(target) as folder:
        (folder / "new").touch()
        assert target.exists() == existing
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(target.parent.iterdir()) == [target]


def test_folder_aside_leaves_the_old_after_a_failure(tmp_path: Path) -> None:
    target = tmp_path / "data"
    target.mkdir()
    (target / "old").touch()

    def fail() -> None:
        with files.folder_aside(target) as folder:
            (folder / "new").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in target.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [target]


def test_folder_aside_restores_the_old_when_the_last_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "data"
    target.mkdir()
    (target / "old").touch()
    rename = Path.rename

    def fail_for_the_new(self: Path, to: Path) -> Path:
        if ".new." in self.name:
            raise OSError("no")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(OSError, match="no"), files.folder_aside(target):
        pass
    assert [path.name for path in target.iterdir()] == ["old"]


def test_folder_aside_removes_what_a_killed_run_left_and_follows_links(tmp_path: Path) -> None:
    (tmp_path / ".data.new.tmp").mkdir()
    (tmp_path / ".data.new.tmp" / "stale").touch()
    (tmp_path / "data").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "data")
    with files.folder_aside(link) as folder:
        (folder / "new").touch()
    assert link.is_symlink()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["new"]
