"""Several ranks on one text, here as threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from made_model import made_lines, write_model_folder

from deltalm_ds.decoding import run
from deltalm_ds.decoding.options import GenerateSettings
from deltalm_ds.errors import UserError


class Group:
    """What ranks share."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.meeting = threading.Barrier(count, timeout=60)
        self.values: list[Any] = [None] * count
        self.sent: list[int] = []


class ThreadRanks:
    """`Ranks` for a thread."""

    def __init__(self, group: Group, rank: int) -> None:
        self._group = group
        self.rank, self.count, self.rank_on_node, self.count_on_node = rank, group.count, rank, group.count
        self.is_first = rank == 0

    def from_first(self, make: Callable[[], Any]) -> Any:
        return self.gathered(make() if self.is_first else None)[0]

    def gathered(self, value: Any) -> list[Any]:
        self._group.values[self.rank] = value
        self.barrier()
        values = list(self._group.values)
        self.barrier()
        return values

    def barrier(self, meanwhile: Callable[[], object] | None = None) -> None:
        self._group.meeting.wait()
        if meanwhile is not None:
            meanwhile()

    def send_progress(self, count: int) -> None:
        self._group.sent.append(count)

    def received_progress(self) -> int:
        taken, self._group.sent = self._group.sent, []
        return sum(taken)

    def __enter__(self) -> ThreadRanks:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def run_ranks(count: int, settings: GenerateSettings) -> list[str]:
    """What was said."""
    group, said = Group(count), []
    own = threading.local()

    def run_rank(rank: int) -> None:
        own.rank = rank
        run.generate(settings, said.append)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(count) as threads:
        patch.setattr(run, "Ranks", lambda: ThreadRanks(group, own.rank))
        list(threads.map(run_rank, range(count)))
    return said


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_model_folder(tmp_path_factory.mktemp("made") / "model", languages=["fr"])


def test_ranks_write_what_one_writes(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in made_lines(50)))
    options = {"model": model, "input": tmp_path / "in", "buffer_lines": 8, "output_format": "jsonl"}
    run_ranks(1, GenerateSettings(output=tmp_path / "expected", **options))
    said = run_ranks(3, GenerateSettings(output=tmp_path / "out", **options))
    assert (tmp_path / "out").read_bytes() == (tmp_path / "expected").read_bytes()
    assert sum("50 lines, 50 sentences" in line for line in said) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "in", "out"]


def test_other_ranks_go_on(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one rank began, three finish; nothing is done twice."""
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in made_lines(60)))
    options = {"model": model, "input": tmp_path / "in", "buffer_lines": 6}
    run_ranks(1, GenerateSettings(output=tmp_path / "expected", **options))
    num_written = []
    write = run.PartialOutput.write

    def write_four(self, *arguments) -> None:
        if len(num_written) == 4:
            raise KeyboardInterrupt
        num_written.append(1)
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(run.PartialOutput, "write", write_four)
        with pytest.raises(KeyboardInterrupt):
            run_ranks(1, GenerateSettings(output=tmp_path / "out", **options))
    monkeypatch.setattr(
        run.PartialOutput, "write", lambda *arguments: (num_written.append(1), write(*arguments))
    )
    said = run_ranks(3, GenerateSettings(output=tmp_path / "out", resume=True, **options))
    assert len(num_written) == 10
    assert (tmp_path / "out").read_bytes() == (tmp_path / "expected").read_bytes()
    assert "60 lines, 60 sentences" in said[0]


def test_killed_between_renaming_and_cleaning(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("nosa\nteki\n")
    settings = GenerateSettings(model=model, input=tmp_path / "in", output=tmp_path / "out", resume=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deltalm_ds.decoding.parts.shutil.rmtree", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_ranks(1, settings)
    expected = (tmp_path / "out").read_bytes()
    assert (tmp_path / "out.partial").exists()
    run_ranks(1, settings)
    assert (tmp_path / "out").read_bytes() == expected
    assert not (tmp_path / "out.partial").exists()


def test_ranks_need_files(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --input and --output"):
        run_ranks(2, GenerateSettings(model=model, output=tmp_path / "out"))
    settings = GenerateSettings(
        model=model, input=tmp_path / "in", output=tmp_path / "out", processes=2, device="cpu"
    )
    with pytest.raises(UserError, match="leave out --processes"):
        run_ranks(2, settings)
