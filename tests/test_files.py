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


def test_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(content)
    assert files.sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(files, "CHUNK_BYTES", 1_500_000)
    seen: list[int] = []
    second = files.chunk_hash(tmp_path / "a", 1, seen.append)
    assert second == hashlib.sha256(content[1_500_000:]).hexdigest()
    assert sum(seen) == len(content) - 1_500_000
    assert len(seen) > 1
    first = hashlib.sha256(content[:1_500_000]).hexdigest()
    assert files.file_tree_hash(tmp_path / "a") == hashlib.sha256(f"{first}\n{second}".encode()).hexdigest()
    assert [files.num_chunks(size) for size in (0, 1, 1_500_000, 1_500_001)] == [0, 1, 1, 2]


def made_folder(path: Path, *names: str) -> Path:
    path.mkdir(parents=True)
    for name in names:
        (path / name).touch()
    return path


@pytest.mark.parametrize("existing", [False, True])
def test_a_folder_is_put_in_place(tmp_path: Path, existing: bool) -> None:
    target = tmp_path / "data"
    if existing:
        made_folder(target, "old")
    made_folder(tmp_path / ".data.old.tmp", "left by a killed run")
    files.put_folder(made_folder(tmp_path / "work", "new"), target)
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def test_the_old_folder_is_back_when_the_last_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, work = made_folder(tmp_path / "data", "old"), made_folder(tmp_path / "work", "new")
    rename = Path.rename

    def fail_for_the_new(self: Path, to: Path) -> Path:
        if self == work:
            raise OSError("no")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(OSError, match="no"):
        files.put_folder(work, target)
    assert [path.name for path in target.iterdir()] == ["old"]
    assert work.exists()


def test_a_link_to_the_folder_stays_a_link(tmp_path: Path) -> None:
    made_folder(tmp_path / "data", "old")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "data")
    files.put_folder(made_folder(tmp_path / "work", "new"), link)
    assert link.is_symlink()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["new"]
