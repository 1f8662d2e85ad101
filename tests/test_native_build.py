"""How C files are compiled, kept and loaded, and what is said where they cannot be."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deltalm_ds import native_build
from deltalm_ds.data.native.library import library as data_library
from deltalm_ds.ops.native.library import library as kernels_library

FLAGS = ("-O1",)
needs_compiler = pytest.mark.skipif(data_library() is None, reason="no C compiler here")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/deltalm-ds"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """C files, with one function."""
    found = tmp_path / "sources"
    found.mkdir()
    (found / "one.c").write_text('#include "one.h"\nint one(void) { return ONE; }')
    (found / "one.h").write_text("#define ONE 1")
    return found


def load(folder: Path) -> int | None:
    library = native_build.load(folder, FLAGS, "some", "it takes longer")
    return None if library is None else int(library.one())


@needs_compiler
def test_built_once_and_then_loaded(cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(folder) == 1
    (built,) = cache.iterdir()
    monkeypatch.setattr(native_build, "compile_library", lambda *_: pytest.fail("compiled again"))
    assert load(folder) == 1
    assert list(cache.iterdir()) == [built]


@needs_compiler
@pytest.mark.parametrize("name", ["one.c", "one.h"])
def test_other_sources_or_flags_make_another_library(folder: Path, name: str) -> None:
    first = native_build.fingerprint("cc", folder, FLAGS)
    second = native_build.fingerprint("cc", folder, ("-O2",))
    (folder / name).write_text("int other;")
    assert len({first, second, native_build.fingerprint("cc", folder, FLAGS)}) == 3


@pytest.mark.parametrize(
    ("library", "said"),
    [
        (data_library, "samples are made in NumPy, more slowly"),
        (kernels_library, "loss on the CPU run in torch"),
    ],
)
def test_without_a_compiler_it_is_said_once_what_happens_instead(
    library: object, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    library.cache_clear()  # type: ignore[attr-defined]
    monkeypatch.setenv("PATH", "")
    with caplog.at_level(logging.WARNING):
        assert library() is None  # type: ignore[operator]
        assert library() is None  # type: ignore[operator]
    library.cache_clear()  # type: ignore[attr-defined]
    (record,) = caplog.records
    assert said in record.getMessage()


def test_a_failing_compiler_leaves_nothing_behind(
    cache: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\n[ $1 = --version ] && exit 0\necho broken >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with caplog.at_level(logging.WARNING):
        assert load(folder) is None
    assert "it takes longer: broken" in caplog.text
    assert not list(cache.iterdir())


def test_a_user_without_a_home_has_no_library(
    cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    with caplog.at_level(logging.WARNING):
        assert load(folder) is None
    assert len(caplog.records) == 1
    assert not cache.exists()


@needs_compiler
def test_no_library_is_made_of_no_sources(
    cache: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "one.c").unlink()
    with caplog.at_level(logging.WARNING):
        assert load(folder) is None
    (record,) = caplog.records
    assert "install the package again" in record.getMessage()
    assert not cache.exists()


BUILD = """
import pathlib, sys
from deltalm_ds import native_build
assert native_build.load(pathlib.Path(sys.argv[1]), ("-O1",), "some", "").one() == 1
"""


@needs_compiler
def test_processes_may_build_at_the_same_time(cache: Path, folder: Path) -> None:
    command = [sys.executable, "-c", BUILD, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    processes = [subprocess.Popen(command, env=environment) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]
    assert len(list(cache.iterdir())) == 1
