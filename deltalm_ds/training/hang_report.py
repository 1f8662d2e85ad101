"""What a hang leaves for people: where each rank stood, which one is behind, and all Python stacks."""

from __future__ import annotations

import faulthandler
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from deltalm_ds.files import write_bytes_atomically, write_text_atomically
from deltalm_ds.tables import format_table

LEFT = "left"
"""The phase of a rank that has left training."""

# Others do not count their collectives.
_COUNTING_BACKENDS = ("gloo", "nccl")
_NUM_NAMED_RANKS = 8


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far one rank has come."""

    rank: int
    host: str
    phase: str
    """start, step, validation, save, or left."""
    step: int
    """Optimizer steps done."""
    batch: int
    """Signs of progress in this phase, since it or the step began."""
    idle_seconds: float
    """Since the last sign of progress."""
    limit_seconds: float
    """How long that may be in this phase."""
    num_collectives: int
    """Collective operations begun, in all process groups."""
    place: str
    """Innermost Python function of the main thread, "name (file:line)"."""
    posted_at: float
    """Seconds since the epoch, by the host's clock."""
    has_answered: bool
    """Whether it has answered to the alarm; else it is what the rank posted last."""

    def where(self) -> str:
        """Phase, step and batch in words."""
        places = {
            "start": "at the start",
            "step": f"in step {self.step + 1:,}, micro-batch {self.batch}",
            "validation": f"in the validation after step {self.step:,}, batch {self.batch}",
            "save": f"saving after step {self.step:,}",
            LEFT: f"having left training after step {self.step:,}",
        }
        return places[self.phase]


def most_behind(standings: Mapping[int, Standing]) -> tuple[Standing, str]:
    """The rank that the others wait for, as far as it can be told, and what tells it.

    First of all it has begun fewer collectives or done fewer steps: whoever waits in a collective has begun
    it. Among equals, a rank whose Python does not answer; among those, the one idle for longest.
    """
    culprit = min(
        standings.values(),
        key=lambda one: (
            *(one.num_collectives, one.step, one.has_answered or one.phase == LEFT, one.phase == LEFT),
            *(-one.idle_seconds, one.rank),
        ),
    )
    collectives = max(one.num_collectives for one in standings.values()) - culprit.num_collectives
    steps = max(one.step for one in standings.values()) - culprit.step
    reasons = []
    if steps:
        reasons.append(f"{steps:,} step{'s' * (steps > 1)} behind")
    if collectives:
        reasons.append(f"{collectives:,} collective{'s' * (collectives > 1)} behind")
    if not culprit.has_answered and culprit.phase != LEFT:
        reasons.append("its Python does not run")
    if not reasons and len(standings) > 1:
        reasons.append("no rank is behind another, it is idle for longest")
    return culprit, ", ".join(reasons)


def one_line(standings: Mapping[int, Standing], world_size: int, stacks: Path) -> str:
    """The hang in one line: who is behind, where it stands, and where the stacks are.

    Args:
        standings: by rank, of all that ever posted one.
        world_size: all ranks.
        stacks: the files of stacks without "-rank_N.txt".
    """
    culprit, reason = most_behind(standings)
    heard = "" if culprit.has_answered or culprit.phase == LEFT else ", when last heard of,"
    line = (
        f"hang: rank {culprit.rank} on {culprit.host} made no progress for {culprit.idle_seconds:.0f} s "
        f"(limit {culprit.limit_seconds:.0f} s){heard} {culprit.where()}"
    )
    if culprit.place:
        line += f", at {culprit.place}"
    if reason:
        line += f"; {reason}"
    if never := [rank for rank in range(world_size) if rank not in standings]:
        line += f"; never heard of rank {_named(never)}"
    silent = [one.rank for one in standings.values() if not one.has_answered and one.phase != LEFT]
    line += f". Stacks: {stacks}-rank_*.txt"
    if silent:
        line += f", of rank {_named(silent)} in {stacks.parent}/held-rank_*.txt if at all"
    return line


def table(standings: Mapping[int, Standing]) -> str:
    """Where every rank stands, a line each."""
    rows = [("rank", "host", "phase", "steps", "batch", "idle s", "collectives", "answered", "at")]
    for _, one in sorted(standings.items()):
        numbers = (f"{one.step}", f"{one.batch}", f"{one.idle_seconds:.1f}", f"{one.num_collectives}")
        answered = "yes" if one.has_answered else "no"
        rows.append((f"{one.rank}", one.host, one.phase, *numbers, answered, one.place or "?"))
    return format_table(rows) + "\n"


def write_stacks(path: Path, standing: Standing, main_thread: int) -> None:
    """All Python stacks of this process, under a line that says where it stands."""
    # Not into `path` at once: if its file system hangs, this would hang with the interpreter's lock.
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        stacks = file.read().decode(errors="replace")
    head = (
        f"rank {standing.rank} on {standing.host}: no progress for {standing.idle_seconds:.1f} s "
        f"{standing.where()}; {standing.num_collectives:,} collectives begun; "
        f"the main thread is 0x{main_thread:016x}\n\n"
    )
    write_text_atomically(path, head + stacks)


def write_flight_record(path: Path, device: torch.device) -> None:
    """The last collectives of this process, as torch's flight recorder pickles them.

    `python -m torch.distributed.flight_recorder.fr_trace FOLDER` compares NCCL's of all ranks; it knows no
    groups of gloo's. With TORCH_FR_BUFFER_SIZE=0 nothing is recorded.
    """
    recorder: Any = torch._C._distributed_c10d
    record = recorder._dump_nccl_trace() if device.type == "cuda" else recorder._dump_fr_trace()
    path.parent.mkdir(exist_ok=True)
    write_bytes_atomically(path, record)


def count_collectives() -> int:
    """Collective operations that this process has begun in all its groups."""
    groups: list[tuple[Any, Any]] = list(dist.distributed_c10d._world.pg_map.items())
    return sum(
        group._get_sequence_number_for_group()
        for group, (backend, _) in groups
        if any(name in backend for name in _COUNTING_BACKENDS)
    )


def place_of(thread: int) -> str:
    """The innermost Python function of a thread by its identifier, "name (file:line)"."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return ""
    file = "/".join(Path(frame.f_code.co_filename).parts[-2:])
    return f"{frame.f_code.co_name} ({file}:{frame.f_lineno})"


def _named(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:_NUM_NAMED_RANKS]))
    return shown if len(ranks) <= _NUM_NAMED_RANKS else f"{shown} and {len(ranks) - _NUM_NAMED_RANKS} more"
