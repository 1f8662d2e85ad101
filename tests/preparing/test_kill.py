"""Killed at any moment and started again, prepare goes on and makes the same bytes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from made_text import contents, make, model_beside, write_text

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.files import put_folder
from deltalm_ds.preparing import layout
from deltalm_ds.preparing.work import work_folder
from deltalm_ds.text import pieces
from deltalm_ds.text.cleaning import CleaningSettings

ROOT = Path(__file__).resolve().parent.parent.parent
NUM_KILLS = 50


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("made") / "text")


def start(folder: Path, output: Path) -> int:
    """Prepare in a forked process, which needs no time to import anything; its number."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            make(folder, output, cleaning=CleaningSettings(duplicates="exact"), validation_share=0.1)
            code = 0
        finally:
            os._exit(code)
    return process


def stage(output: Path) -> str:
    """The last stage that has left something."""
    work = work_folder(output)
    if not work.exists():
        return "finished" if output.exists() else "nothing"
    marks = {
        "sealing": "finishing-*/finished/manifest.json",
        "hashing": "finishing-*/finished/.marks/hashes/*",
        "writing": "finishing-*/finished/.marks/written/*",
        "layout": "finishing-*/tables/*.safetensors",
        "duplicates": "finishing-*/duplicates/*.safetensors",
        "encoding": "encoded-*/*/*.json",
    }
    return next((name for name, pattern in marks.items() if any(work.glob(pattern))), "starting")


def markers(output: Path) -> dict[Path, tuple[int, int]]:
    """What is done, and when it was."""
    work = work_folder(output)
    patterns = (
        "encoded-*/*/*.json",
        "finishing-*/tables/*.safetensors",
        "finishing-*/duplicates/*.safetensors",
    )
    found = [path for pattern in patterns for path in work.glob(pattern)]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def test_fifty_kills(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1500)
    monkeypatch.setattr(layout, "RANGE_BYTES", 4000)
    output = tmp_path / "out"
    started = time.monotonic()
    assert os.waitpid(start(text, output), 0)[1] == 0
    seconds = time.monotonic() - started
    expected = contents(output)
    shutil.rmtree(output)
    generator = random.Random(0)
    stages: Counter[str] = Counter()
    num_kills = num_finished = 0
    while num_kills < NUM_KILLS or num_finished == 0:
        before = markers(output)
        process = start(text, output)
        time.sleep(generator.uniform(0, 0.5 * seconds) if num_kills < NUM_KILLS else 60 * seconds)
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        assert os.WIFSIGNALED(status) or status == 0
        assert not output.exists() or contents(output) == expected
        if os.WIFSIGNALED(status):
            num_kills += 1
            stages[stage(output)] += 1
        if output.exists():
            num_finished += 1
            shutil.rmtree(output)
        elif work_folder(output).exists():
            after = markers(output)
            assert before.items() <= after.items(), "something was done twice"
    assert num_finished > 0
    assert len(stages) >= 4, stages


def test_killed_between_the_last_renames(text: Path, tmp_path: Path) -> None:
    """The output is gone, the finished folder is not in its place yet."""
    output = tmp_path / "out"
    make(text, output)
    expected = contents(output)
    make(text, output, seed=1, overwrite=True)
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from made_text import make\n"
        "rename = Path.rename\n"
        "def kill(self, to):\n"
        "    if self.name == 'finished':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return rename(self, to)\n"
        "Path.rename = kill\n"
        f"make(Path({str(text)!r}), Path({str(output)!r}), overwrite=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    killed = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not output.exists()
    make(text, output)
    assert contents(output) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_was_finished_is_written_again_if_it_was_moved_away(text: Path, tmp_path: Path) -> None:
    """Nothing that is left of an old run may be taken for the files of this one."""
    output = tmp_path / "out"
    make(text, output)
    expected = contents(output)
    shutil.rmtree(output)
    with pytest.MonkeyPatch.context() as patch:

        def fail(new: Path, path: Path) -> None:
            put_folder(new, path)
            raise KeyboardInterrupt

        patch.setattr("deltalm_ds.preparing.run.put_folder", fail)
        with pytest.raises(KeyboardInterrupt):
            make(text, output)
    assert work_folder(output).exists()
    shutil.rmtree(output)
    make(text, output)
    assert contents(output) == expected
    Corpus.open(output, verify=True)


def test_a_file_that_was_mended_is_done_again_and_nothing_else(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "text"
    shutil.copytree(text, folder)
    good = (folder / "de.txt").read_bytes()
    (folder / "de.txt").write_bytes(good + b"\n\nd\xe9j\xe0")
    with pytest.raises(Exception, match=r"de\.txt is not UTF-8 at line 11.*kept in .*\.out\.work"):
        make(folder, tmp_path / "out", model=model_beside(text))
    before = markers(tmp_path / "out")
    assert before
    (folder / "de.txt").write_bytes(good)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deltalm_ds.preparing.run.put_folder", lambda new, path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make(folder, tmp_path / "out", model=model_beside(text))
    assert before.items() <= markers(tmp_path / "out").items()
    make(folder, tmp_path / "out", model=model_beside(text))
    make(folder, tmp_path / "fresh", model=model_beside(text))
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


@pytest.mark.parametrize("num_workers", [2])
def test_killed_with_its_workers(text: Path, tmp_path: Path, num_workers: int) -> None:
    """The whole command with worker processes, killed a few times; the workers end by themselves."""
    arguments = [
        *(sys.executable, "-m", "deltalm_ds.prepare", text, "--output", tmp_path / "out"),
        *("--tokenizer", model_beside(text), "--workers", str(num_workers)),
    ]
    make(text, tmp_path / "expected")
    for seconds in (0.8, 1.1, 1.4, 60):
        process = subprocess.Popen(
            list(map(str, arguments)), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
    assert process.returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")
