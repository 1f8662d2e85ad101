"""Prepared by several MPI ranks: the same bytes, through kills and errors too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_text import contents, make, model_beside, write_text

from deltalm_ds.preparing.work import work_folder
from deltalm_ds.text.cleaning import CleaningSettings

ROOT = Path(__file__).resolve().parent.parent.parent
MPIRUN = shutil.which("mpirun")

pytestmark = pytest.mark.skipif(MPIRUN is None, reason="needs mpirun, of Open MPI for example")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("made") / "text")


def start(num_ranks: int, *arguments: object) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        **{"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"},
    }
    command = [MPIRUN, "--oversubscribe", "-np", num_ranks, sys.executable, "-m", "deltalm_ds.prepare"]
    return subprocess.Popen(
        [str(word) for word in (*command, *arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ranks_make_the_same_bytes(text: Path, tmp_path: Path) -> None:
    """1, 2 and 4 ranks train a tokenizer and prepare; another 3 are killed and a single process goes on."""
    options = ["--vocabulary-size", 150, "--character-coverage", 1, "--workers", 1, "--duplicates", "exact"]
    for num_ranks in (1, 2, 4):
        process = start(num_ranks, text, "--output", tmp_path / str(num_ranks), *options)
        said, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert said.count("is ready") == 1, "only rank 0 speaks"
    expected = contents(tmp_path / "1")
    assert contents(tmp_path / "2") == contents(tmp_path / "4") == expected

    process = start(3, text, "--output", tmp_path / "killed", *options)
    work = work_folder(tmp_path / "killed")
    while not any(work.glob("survey-*/*/*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    make(
        text,
        tmp_path / "killed",
        names=("",),
        cleaning=CleaningSettings(duplicates="exact"),
        **{"tokenizer": None, "vocabulary_size": 150, "character_coverage": 1.0},
    )
    assert contents(tmp_path / "killed") == expected


def test_an_error_on_one_rank_ends_all(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "text"
    shutil.copytree(text, folder)
    with (folder / "de.txt").open("ab") as file:
        file.write(b"\n\nd\xe9j\xe0")
    arguments = [folder, "--output", tmp_path / "out", "--tokenizer", model_beside(text), "--workers", 1]
    process = start(3, *arguments)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors.count("de.txt is not UTF-8 at line 11") == 1
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


def test_more_ranks_than_work(text: Path, tmp_path: Path) -> None:
    make(text, tmp_path / "expected", names=("de.txt",))
    arguments = [text / "de.txt", "--tokenizer", model_beside(text), "--output", tmp_path / "out"]
    process = start(4, *arguments)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")
