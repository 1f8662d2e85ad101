"""The command generate: pipes, files, kills, processes, ranks, a terminal."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from made_model import made_lines, write_model_folder

from deltalm_ds import commands
from deltalm_ds import generate as command

ROOT = Path(__file__).resolve().parent.parent
MPIRUN = shutil.which("mpirun")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
COMMAND = [sys.executable, "-m", "deltalm_ds.generate"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model_folder(tmp_path_factory.mktemp("made") / "model", languages=["fr"])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the command's own processes have it here: sums of more threads differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start(*arguments: object, **options) -> subprocess.Popen[bytes]:
    """The command in a process of its own."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], cwd=ROOT, env=ENVIRONMENT, **{**pipes, **options}
    )


def run(*arguments: object, text: bytes = b"") -> tuple[int, bytes, str]:
    """Exit code, stdout and stderr of the command in this process."""
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        files[0].write(text)
        files[0].seek(0)
        for name, file in zip(("stdin", "stdout", "stderr"), files, strict=True):
            patch.setattr(sys, name, io.TextIOWrapper(file, encoding="utf-8", write_through=True))
        patch.setattr(sys, "argv", ["generate", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            commands.run("generate", command.main)
        for file in files[1:]:
            file.seek(0)
        return int(stop.value.code or 0), files[1].read(), files[2].read().decode()


def outputs(*arguments: object, text: bytes = b"") -> list[str]:
    code, output, errors = run(*arguments, text=text)
    assert code == 0, errors
    return output.decode().split("\n")


def as_bytes(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def test_one_line_for_each_line(model: Path) -> None:
    lines = made_lines(30)
    lines[4] = lines[20] = ""
    expected = outputs(model, text=as_bytes(lines))
    assert expected.pop() == ""
    assert len(expected) == 30
    assert [place for place, line in enumerate(expected) if not line] == [4, 20]
    order = random.Random(1).sample(range(30), 30)
    shuffled = outputs(model, "--buffer-lines", 7, text=as_bytes([lines[place] for place in order]))
    assert shuffled[:-1] == [expected[place] for place in order]
    windows = "\r\n".join(lines).encode()
    assert outputs(model, text=b"\xef\xbb\xbf" + windows)[:-1] == expected


def test_what_is_told(model: Path) -> None:
    long = " ".join(made_lines(40))
    code, _, errors = run(model, text=as_bytes(["nosa", "", long]))
    assert code == 0
    told = [line.removeprefix("deltalm-ds generate: ") for line in errors.splitlines()]
    assert told[0].startswith("3 lines, 2 sentences, ")
    assert "sentences/s" in told[0]
    assert "tokens/s" in told[0]
    assert [
        line for line in told if "sources too long and cut" in line and "1 of 2, the first in line 3" in line
    ]
    assert "100.0% of the outputs are in the script of fr (Latn)" in told


def test_no_text_at_all(model: Path, tmp_path: Path) -> None:
    assert outputs(model) == [""]
    assert outputs(model, "--output", tmp_path / "out", "--output-format", "tsv") == [""]
    assert (tmp_path / "out").read_text().split("\t")[:3] == ["id", "rank", "score"]


def test_tables_of_many_best(model: Path) -> None:
    lines = ["nosa\tteki", "", "lumo bane"]
    text = as_bytes(lines)
    best = outputs(model, "--beam", 3, text=text)[:-1]
    table = outputs(model, "--beam", 3, "--num-best", 3, "--output-format", "tsv", text=text)[:-1]
    names, *rows = [row.split("\t") for row in table]
    assert [row[:2] for row in rows] == [
        ["1", "1"],
        ["1", "2"],
        ["1", "3"],
        ["2", "1"],
        *[["3", r] for r in "123"],
    ]
    records = [dict(zip(names, row, strict=True)) for row in rows]
    assert [record["text"] for record in records if record["rank"] == "1"] == best
    assert records[0]["source"] == "nosa teki"
    found = outputs(model, "--beam", 3, "--num-best", 3, "--output-format", "jsonl", text=text)[:-1]
    objects = [json.loads(line) for line in found]
    assert [str(one["score"]) for one in objects] == [str(float(record["score"])) for record in records]
    assert objects[0]["source"] == "nosa\tteki"
    assert len(objects[0]["token_scores"]) == len(records[0]["token_scores"].split())


def test_scores_of_given_targets(model: Path, tmp_path: Path) -> None:
    lines = made_lines(40)
    found = outputs(model, "--output-format", "jsonl", text=as_bytes(lines))[:-1]
    generated = [json.loads(line) for line in found]
    (tmp_path / "targets").write_bytes(as_bytes([one["text"] for one in generated]))
    options = ["--score-targets", tmp_path / "targets", "--buffer-lines", 6, "--output-format", "jsonl"]
    scored = [json.loads(line) for line in outputs(model, *options, text=as_bytes(lines))[:-1]]
    assert [one["id"] for one in scored] == list(range(1, 41))
    equal = [
        abs(ours["score"] - given["score"]) < 1e-5
        and abs(ours["log_probability"] - given["log_probability"]) < 1e-4
        for ours, given in zip(generated, scored, strict=True)
    ]
    assert sum(equal) > 8  # the others' texts are cut into other pieces than they were made of
    for count, message in ((39, "only 39 targets"), (41, "more targets than the 40 lines")):
        (tmp_path / "targets").write_bytes(b"nosa\n" * count)
        code, _, errors = run(model, *options, text=as_bytes(lines))
        assert code == 2
        assert message in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target-language", "de"], "does not write 'de': it knows fr"),
        (["--input", "nowhere.txt"], "nowhere.txt: cannot be read"),
        (["--num-best", 2], "--num-best above 1 needs --output-format"),
        (["--beam", 0], "beam must be at least 1"),
        (["--batch-tokens", 0], "--batch-tokens must be 1 or more"),
        (["--resume"], "--resume goes on with a file"),
        (["--score-targets", "x", "--beam", 2], "generates nothing: leave out --beam"),
        (["--forced-first-token", "quux"], "has no such piece.*its tags are of fr"),
        (["--prefix", "中"], "has characters that .* does not know"),
        (["--device", "nonsense"], "--device nonsense cannot be used here"),
        (["--temperature", 0.5], "add sampling"),
    ],
)
def test_wrong_options(model: Path, options: list[object], message: str) -> None:
    code, output, errors = run(model, *options, text=b"nosa\n")
    assert (code, output) == (2, b"")
    assert len(errors.splitlines()) == 1
    assert re.search(message, errors)


def test_a_line_that_is_no_text_is_named(model: Path) -> None:
    code, output, errors = run(model, "--buffer-lines", 2, text=b"nosa\nteki\nlumo\nd\xe9j\xe0\nbane\n")
    assert code == 2
    assert "standard input, line 4, is not UTF-8" in errors
    assert output.count(b"\n") == 2


def test_a_damaged_model(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for name, message in (
        ("model.safetensors", "not the file that config.json was written for"),
        ("sentencepiece.bpe.model", "not the tokenizer"),
    ):
        shutil.copytree(model, folder)
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)
        code, _, errors = run(folder, text=b"nosa\n")
        assert code == 2
        assert message in errors
        (folder / name).unlink()
        code, _, errors = run(folder, text=b"nosa\n")
        assert code == 2
        assert name in errors
        shutil.rmtree(folder)


def test_a_reader_that_leaves(model: Path) -> None:
    process = start(model, "--buffer-lines", 1, stderr=subprocess.PIPE, stdin=subprocess.PIPE)
    process.stdin.write(as_bytes(made_lines(300)))
    process.stdin.close()
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0
    assert b"Traceback" not in process.stderr.read()


def test_files_that_exist(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.write_text("mine")
    code, _, errors = run(model, "--output", output, text=b"nosa\n")
    assert code == 2
    assert "out exists: name another --output" in errors
    assert run(model, "--output", output, "--resume", text=b"nosa\n")[0] == 2
    assert output.read_text() == "mine"
    (tmp_path / "new.partial").mkdir()
    (tmp_path / "new.partial/mine").touch()
    code, _, errors = run(model, "--output", tmp_path / "new", text=b"nosa\n")
    assert code == 2
    assert "new.partial is in the way" in errors


def test_killed_at_any_moment(model: Path, tmp_path: Path) -> None:
    text, output = tmp_path / "in", tmp_path / "out"
    text.write_bytes(as_bytes(made_lines(400)))
    options = [model, "--input", text, "--buffer-lines", 10, "--output-format", "jsonl"]
    assert run(*options, "--output", tmp_path / "expected")[0] == 0
    expected = (tmp_path / "expected").read_bytes()
    generator = random.Random(0)
    parts = tmp_path / "out.partial"
    num_done = 0
    for _ in range(3):
        process = start(*options, "--output", output, "--resume")
        while process.poll() is None and (not parts.exists() or len(list(parts.iterdir())) <= num_done + 1):
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not output.exists()
        done = {path.name: path.stat().st_mtime_ns for path in parts.iterdir()}
        assert len(done) > num_done
        num_done = len(done)
    code, _, errors = run(*options, "--output", output)
    assert code == 2
    assert "give --resume to go on" in errors
    code, _, errors = run(*options, "--output", output, "--resume", "--beam", 3)
    assert code == 2
    assert "another beam (2, now 3)" in errors
    code, _, errors = run(*options, "--output", output, "--resume")
    assert code == 0
    assert "400 lines" in errors
    assert output.read_bytes() == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "in", "out"]


def test_input_that_changed_is_generated_again(model: Path, tmp_path: Path) -> None:
    lines = made_lines(60)
    options = [model, "--buffer-lines", 10]
    bad = as_bytes(lines[:35]) + b"\xff\n"
    assert run(*options, "--output", tmp_path / "out", text=bad)[0] == 2
    lines[5] = "teki"
    code, _, errors = run(*options, "--output", tmp_path / "out", "--resume", text=as_bytes(lines))
    assert code == 0, errors
    assert (tmp_path / "out").read_text().splitlines() == outputs(model, text=as_bytes(lines))[:-1]


def test_processes_share_the_work(model: Path, tmp_path: Path) -> None:
    text = as_bytes(made_lines(50))
    options = [model, "--buffer-lines", 8, "--output-format", "jsonl"]
    expected = outputs(*options, text=text)
    assert outputs(*options, "--processes", 2, "--output", tmp_path / "out", text=text) == [""]
    assert (tmp_path / "out").read_text().split("\n") == expected


@pytest.mark.skipif(MPIRUN is None, reason="needs mpirun, of Open MPI for example")
def test_ranks_share_the_work(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(as_bytes(made_lines(50)))
    options = [model, "--input", tmp_path / "in", "--buffer-lines", 8, "--output-format", "jsonl"]
    assert run(*options, "--output", tmp_path / "expected")[0] == 0
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    command = [MPIRUN, "--oversubscribe", "-np", 2, *COMMAND, *options, "--output", tmp_path / "out"]
    done = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env={**ENVIRONMENT, **allowed},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("50 lines") == 1
    assert (tmp_path / "out").read_bytes() == (tmp_path / "expected").read_bytes()


def test_a_terminal_is_answered_at_once(model: Path) -> None:
    expected = outputs(model, text=b"nosa teki\nlumo\n")
    master, slave = pty.openpty()
    process = start(model, stdin=slave)
    os.close(slave)
    try:
        read_until(process.stderr, b"fr> ")
        for line, answer in zip((b"nosa teki\n", b"lumo\n"), expected[:2], strict=True):
            os.write(master, line)
            assert process.stdout.readline().decode() == f"{answer}\n"
            assert b" s" in read_until(process.stderr, b"fr> ")
        os.write(master, b"\x04")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
        os.close(master)


def read_until(pipe, end: bytes) -> bytes:
    found = b""
    while not found.endswith(end):
        assert select.select([pipe], [], [], 60)[0], found
        found += os.read(pipe.fileno(), 1)
    return found


def test_help_is_there_without_torch() -> None:
    program = (
        "import atexit, sys; from deltalm_ds import generate\n"
        "atexit.register(lambda: print('torch' in sys.modules))\n"
        "generate.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--help"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--score-targets" in done.stdout
    assert done.stdout.endswith("False\n")
