"""Run a test's function in several real processes that form one torch.distributed world on this machine.

The function lives in any test file, takes keyword arguments that JSON can carry and returns such a value:

    outcomes = run_distributed(train, 2, steps=3)
    assert outcomes[0].value == outcomes[1].value

Every process has RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT, the test's import
path, one thread, and the CPU as DeepSpeed's accelerator; the function joins the others itself. Each process
leads a process group of its own, killed with all its children when its time is up or another rank failed.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent

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
        self.processes: list[subprocess.Popen[bytes]] = []
        self.first_failed: int | None = None
        source = inspect.getsourcefile(function)
        assert source is not None
        port = free_port()
        for rank in range(num_processes):
            command = [sys.executable, __file__, source, function.__qualname__, json.dumps(dict(arguments))]
            with (
                (self.folder / f"{rank}.out").open("wb") as out,
                (self.folder / f"{rank}.err").open("wb") as err,
            ):
                self.processes.append(
                    subprocess.Popen(
                        [*command, str(self.folder / f"{rank}.json")],
                        env=_environment(rank, num_processes, port, environment or {}),
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=err,
                        start_new_session=True,
                    )
                )

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
        while any(process.poll() is None for process in self.processes):
            self.poll()
            if self.first_failed is not None:
                end = min(end, time.monotonic() + _SECONDS_FOR_THE_OTHERS)
            if time.monotonic() > end:
                late = [rank for rank, process in enumerate(self.processes) if process.poll() is None]
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
            failed = (rank for rank, process in enumerate(self.processes) if process.poll())
            self.first_failed = next(failed, None)

    def _outcome(self, rank: int) -> Outcome:
        returncode = self.processes[rank].wait()
        result = self.folder / f"{rank}.json"
        value = json.loads(result.read_text()) if result.exists() else None
        out, err = ((self.folder / f"{rank}.{kind}").read_text(errors="replace") for kind in ("out", "err"))
        return Outcome(returncode, value, out, err)


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


def _environment(rank: int, num_processes: int, port: int, more: Mapping[str, str]) -> dict[str, str]:
    python_path = [str(REPOSITORY), *filter(None, sys.path)]
    return {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": os.pathsep.join(python_path),
        **more,
    }


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _main(source: str, name: str, arguments: str, result: str) -> None:
    specification = importlib.util.spec_from_file_location(Path(source).stem, source)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    gc.freeze()  # DeepSpeed collects garbage often, a second each time over all that was just imported
    value = getattr(module, name)(**json.loads(arguments))
    Path(result).write_text(json.dumps(value))
    # Threads of libraries must not hold the process back once the test's work is done.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).resolve().parent))
    _main(*sys.argv[1:])
