"""Run a test's function in several real processes that form one torch.distributed world on this machine.

The function lives in any test file, takes keyword arguments that JSON can carry and returns such a value:

    outcomes = run_distributed(train, 2, steps=3)
    assert outcomes[0].value == outcomes[1].value

Processes are forked from a server that has imported torch and DeepSpeed, which takes seconds, and has done
nothing else. Every process has RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT, the
test's import path, one thread, and the CPU as DeepSpeed's accelerator; the function joins the others itself.
Each process leads a process group of its own, killed with all its children when its time is up or another
rank failed.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import inspect
import json
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from unittest import mock

REPOSITORY = Path(__file__).resolve().parent.parent

_PRELOADED = [
    "deltalm_ds.training.build",
    "deepspeed.checkpoint.ds_to_universal",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "torch._dynamo",
]
# What libraries read when they are loaded.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}

_SECONDS_FOR_THE_OTHERS = 5.0
_ERROR_CHARACTERS = 6000


@dataclass(frozen=True)
class Outcome:
    """How one rank ended: exit code (negative: killed by that signal), value and printed text."""

    returncode: int
    value: Any
    stdout: str
    stderr: str


class DistributedRun:
    """Processes under way; use `run_distributed` unless the test must act on them meanwhile."""

    def __init__(
        self,
        function: Callable[..., Any],
        num_processes: int,
        arguments: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="distributed-test-")
        self.folder = Path(self._folder.name)
        self.processes: list[ForkServerProcess] = []
        self.first_failed: int | None = None
        source = inspect.getsourcefile(function)
        assert source is not None
        port = free_port()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        with mock.patch.dict(os.environ, _ENVIRONMENT):
            forkserver.ensure_running()
        for rank in range(num_processes):
            call = (source, function.__qualname__, json.dumps(dict(arguments)))
            variables = _environment(rank, num_processes, port, environment or {})
            process = context.Process(target=_main, args=(*call, str(self.folder / str(rank)), variables))
            process.start()
            self.processes.append(process)

    def kill(self) -> None:
        """kill -9 for every rank and its children."""
        for process in self.processes:
            _kill(process)

    def wait(self, timeout: float) -> list[Outcome]:
        """The outcomes of all ranks.

        The first failing rank ends the others a few seconds later. After `timeout` seconds all are killed and
        TimeoutError shows the errors of the ranks that were still running.
        """
        end = time.monotonic() + timeout
        late: list[int] = []
        while any(process.exitcode is None for process in self.processes):
            self.poll()
            if self.first_failed is not None:
                end = min(end, time.monotonic() + _SECONDS_FOR_THE_OTHERS)
            if time.monotonic() > end:
                late = [rank for rank, process in enumerate(self.processes) if process.exitcode is None]
                break
            time.sleep(0.02)
        self.poll()
        self.kill()
        outcomes = [self._outcome(rank) for rank in range(len(self.processes))]
        self._folder.cleanup()
        if late and self.first_failed is None:
            shown = "\n".join(f"rank {rank}:\n{outcomes[rank].stderr[-_ERROR_CHARACTERS:]}" for rank in late)
            raise TimeoutError(f"ranks {late} still ran after {timeout} s\n{shown}")
        return outcomes

    def poll(self) -> None:
        """See who has ended: the first rank to fail is then `first_failed`."""
        if self.first_failed is None:
            failed = (rank for rank, process in enumerate(self.processes) if process.exitcode)
            self.first_failed = next(failed, None)

    def _outcome(self, rank: int) -> Outcome:
        def text(kind: str) -> str:
            path = self.folder / f"{rank}.{kind}"
            return path.read_text(errors="replace") if path.exists() else ""

        returncode = self.processes[rank].exitcode
        assert returncode is not None
        return Outcome(returncode, json.loads(text("json") or "null"), text("out"), text("err"))


def run_distributed(
    function: Callable[..., Any],
    num_processes: int,
    *,
    timeout: float = 300.0,
    environment: Mapping[str, str] | None = None,
    expect_failure: bool = False,
    **arguments: Any,
) -> list[Outcome]:
    """Call `function(**arguments)` in `num_processes` processes and return their outcomes by rank.

    Unless `expect_failure`, a rank that fails makes AssertionError with the stderr of the first that did.
    """
    run = DistributedRun(function, num_processes, arguments, environment)
    outcomes = run.wait(timeout)
    first = run.first_failed
    if first is not None and not expect_failure:
        shown = outcomes[first].stderr[-_ERROR_CHARACTERS:]
        raise AssertionError(f"rank {first} ended with {outcomes[first].returncode}\n{shown}")
    return outcomes


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def let_deepspeed_run_fp16() -> None:
    """On any CPU: DeepSpeed refuses fp16 without instructions for it, and torch computes it all the same."""
    from deepspeed.accelerator import get_accelerator

    type(get_accelerator()).is_fp16_supported = lambda self: True


def _environment(rank: int, num_processes: int, port: int, more: Mapping[str, str]) -> dict[str, str]:
    python_path = [str(REPOSITORY), *filter(None, sys.path)]  # for processes that these start
    return {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        **_ENVIRONMENT,
        "PYTHONPATH": os.pathsep.join(python_path),
        **more,
    }


def _kill(process: ForkServerProcess) -> None:
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()  # should it not lead its group yet
    process.join()


def _main(source: str, name: str, arguments: str, stem: str, variables: dict[str, str]) -> None:
    os.setsid()
    for number, path in enumerate((os.devnull, f"{stem}.out", f"{stem}.err")):
        os.dup2(os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(variables)
    sys.modules["__main__"] = types.ModuleType("__main__")  # not pytest, which spawned processes would import
    specification = importlib.util.spec_from_file_location(Path(source).stem, source)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    gc.freeze()  # DeepSpeed collects garbage often, a second each time over all that was imported
    value = getattr(module, name)(**json.loads(arguments))
    Path(f"{stem}.json").write_text(json.dumps(value))
    # Threads of libraries must not hold the process back once the test's work is done.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
