from __future__ import annotations

import contextlib
import dataclasses
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from made_corpus import write_random_corpus
from stub_readers import FailingReader, SlowReader

from deltalm_ds import ops
from deltalm_ds.data.batches import IGNORE, BatchPlan, GlobalBatch, StepBatches, StepReader
from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.loader import StepLoader, to_tensors
from deltalm_ds.data.samples import SampleReader
from deltalm_ds.data.settings import DataSettings
from deltalm_ds.errors import UserError

TESTS = Path(__file__).resolve().parent.parent
PLAN = BatchPlan(batch_tokens=700)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> SampleReader:
    folder = write_random_corpus(tmp_path_factory.mktemp("corpus"))
    return SampleReader(Corpus.open(folder), DataSettings(max_source_length=64, max_target_length=64), seed=1)


def content(step: StepBatches) -> tuple[object, ...]:
    arrays = [
        value.tobytes() if isinstance(value, np.ndarray) else value
        for batch in step.micro_batches
        for value in (getattr(batch, field.name) for field in dataclasses.fields(batch))
    ]
    return (*dataclasses.astuple(dataclasses.replace(step, micro_batches=[])), *arrays)


def load(reader: SampleReader, num_workers: int, num_steps: int, step: int = 0, position: int = 0) -> list:
    batches = PLAN.batches(reader.num_tokens, step=step, position=position, end_step=num_steps)
    with StepLoader(StepReader(reader, 1, 2, 2), batches, num_workers) as loader:
        return [content(batches) for batches in loader]


def steps_of_one() -> Iterator[GlobalBatch]:
    return (GlobalBatch(step, step, step + 1) for step in count())


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_workers_and_the_place_of_the_start_change_nothing(reader: SampleReader) -> None:
    alone = load(reader, 0, 9)
    assert [step[0] for step in alone] == list(range(9))
    assert load(reader, 1, 9) == alone
    position = alone[4][1]
    assert isinstance(position, int)
    assert position > 0
    assert load(reader, 2, 9, step=4, position=position) == alone[4:]
    assert not multiprocessing.active_children()


def test_signals_to_workers_are_left_to_the_main_process(tmp_path: Path) -> None:
    def send_all(pids: list[int]) -> None:
        for pid in pids:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
                os.kill(pid, number)

    with StepLoader(SlowReader(tmp_path, 0.01), steps_of_one(), num_workers=2) as loader:
        pids = [child.pid for child in multiprocessing.active_children()]
        assert len(pids) == 2
        send_all(pids)  # while they start
        assert next(loader).step == 0
        send_all(pids)  # while they work
        assert [next(loader).step for _ in range(10)] == list(range(1, 11))
        assert {int(file.name) for file in tmp_path.iterdir()} == set(pids)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])  # here they arrive as before


def test_errors_in_a_worker_arrive_clearly() -> None:
    with StepLoader(FailingReader(), steps_of_one(), num_workers=1) as loader:
        with pytest.raises(UserError) as mistake:
            next(loader)
        assert str(mistake.value) == "fr.bin holds token id 9999: prepare it again"
        with pytest.raises(RuntimeError, match="ZeroDivisionError: in the reader") as failure:
            next(loader)
        assert "stub_readers.py" in str(failure.value)  # where in the worker
        (worker,) = multiprocessing.active_children()
        worker.kill()
        for _ in range(2):
            with pytest.raises(RuntimeError, match="a loader worker ended before its time"):
                next(loader)
    with StepLoader(FailingReader(), steps_of_one(), num_workers=0) as loader, pytest.raises(UserError):
        next(loader)


SCRIPT = """
import sys, time
from pathlib import Path
from stub_readers import SlowReader
from deltalm_ds.data.batches import GlobalBatch
from deltalm_ds.data.loader import StepLoader

folder, seconds, ending = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
steps = (GlobalBatch(step, step, step + 1) for step in range(10**6))
loader = StepLoader(SlowReader(folder, seconds), steps, num_workers=1)
while not list(folder.iterdir()):
    time.sleep(0.05)
if ending == "raise":
    raise ValueError("the run fails")
time.sleep(600)
"""


@contextmanager
def running_script(folder: Path, seconds: float, ending: str) -> Iterator[subprocess.Popen[str]]:
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(seconds), ending],
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield script
    finally:
        script.kill()
        script.wait()


def test_workers_die_with_a_parent_killed_by_sigkill(tmp_path: Path) -> None:
    # In the midst of a step, where torch's own watchdog does not look.
    with running_script(tmp_path, 600.0, "wait"):
        wait_until(lambda: any(tmp_path.iterdir()))
        (pid,) = (int(file.name) for file in tmp_path.iterdir())
        assert is_running(pid)
    wait_until(lambda: not is_running(pid), seconds=20.0)


def test_a_run_that_fails_without_closing_ends_with_its_workers(tmp_path: Path) -> None:
    with running_script(tmp_path, 0.01, "raise") as script:
        _, errors = script.communicate(timeout=60)
    assert script.returncode == 1
    assert errors.strip().endswith("ValueError: the run fails")
    (pid,) = (int(file.name) for file in tmp_path.iterdir())
    assert not is_running(pid)


def test_waiting_is_counted_and_ends_with_the_steps(tmp_path: Path) -> None:
    loader = StepLoader(
        SlowReader(tmp_path, 0.02), [GlobalBatch(0, 0, 1), GlobalBatch(1, 1, 2)], num_workers=0
    )
    assert loader.waited_seconds == 0.0
    next(loader)
    first = loader.waited_seconds
    assert first >= 0.02
    assert [step.step for step in loader] == [1]
    assert loader.waited_seconds >= first + 0.02
    loader.close()
    with pytest.raises(StopIteration):
        next(loader)


def remains(folder: Path) -> tuple[object, ...]:
    gc.collect()  # what earlier tests left
    process = psutil.Process()
    children = {child.pid for child in process.children(recursive=True)}
    return process.num_fds(), threading.active_count(), children, list(folder.iterdir())


@pytest.mark.parametrize("num_steps", [3, 1000])
def test_a_closed_loader_leaves_nothing_behind(
    reader: SampleReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_steps: int
) -> None:
    """At the end of the steps and in the midst of them."""
    resource_tracker.ensure_running()  # it stays as long as this process
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = remains(tmp_path)
    batches = PLAN.batches(reader.num_tokens, end_step=num_steps)
    with StepLoader(StepReader(reader, 0, 1, 2), batches, num_workers=2) as loader:
        assert [next(loader).step for _ in range(3)] == [0, 1, 2]
        for process in [psutil.Process(), *map(psutil.Process, worker_pids())]:
            with contextlib.suppress(psutil.NoSuchProcess):
                assert not [mapped for mapped in process.memory_maps() if "/dev/shm" in mapped.path]
        if num_steps == 3:
            assert list(loader) == []
    assert remains(tmp_path) == before
    with pytest.raises(StopIteration):
        next(loader)


def worker_pids() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_of_the_batches_comes_after_the_steps_before_it(tmp_path: Path, num_workers: int) -> None:
    def batches() -> Iterator[GlobalBatch]:
        yield GlobalBatch(0, 0, 1)
        yield GlobalBatch(1, 1, 2)
        raise UserError("de.idx is damaged")

    with StepLoader(SlowReader(tmp_path, 0.0), batches(), num_workers) as loader:
        assert [next(loader).step, next(loader).step] == [0, 1]
        with pytest.raises(UserError, match=r"de\.idx is damaged"):
            next(loader)


def test_a_reader_that_cannot_be_sent_leaves_no_worker() -> None:
    class Local:
        def read(self, batch: GlobalBatch) -> StepBatches:
            raise NotImplementedError

    before = multiprocessing.active_children()
    with pytest.raises((AttributeError, pickle.PicklingError)):
        StepLoader(Local(), steps_of_one(), num_workers=2)
    assert multiprocessing.active_children() == before


def test_torchs_global_generator_is_left_alone(reader: SampleReader) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load(reader, 0, 2)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.filterwarnings("error")
def test_tensors_hold_what_the_arrays_held(reader: SampleReader) -> None:
    batch = StepReader(reader, 0, 1, 1).read(GlobalBatch(0, 0, 6)).micro_batches[0]
    tensors = to_tensors(batch, torch.device("cpu"))
    for field in dataclasses.fields(batch):
        value, tensor = getattr(batch, field.name), getattr(tensors, field.name)
        if isinstance(value, np.ndarray):
            assert isinstance(tensor, torch.Tensor)
            assert np.array_equal(tensor.numpy(), value)
            assert tensor.numpy().dtype == value.dtype
        else:
            assert tensor == value
            assert type(tensor) is int


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_reach_a_gpu(reader: SampleReader) -> None:
    batch = StepReader(reader, 0, 1, 1).read(GlobalBatch(0, 0, 6)).micro_batches[0]
    tensors = to_tensors(batch, torch.device("cuda"))
    assert tensors.labels.is_cuda
    assert np.array_equal(tensors.labels.cpu().numpy(), batch.labels)


def test_the_ignored_label_is_the_models() -> None:
    assert IGNORE == ops.IGNORE
