"""What the check-up is asked, and where healthy ends."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from deltalm_ds.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where healthy ends. Speeds are compared with the median of all, so that they fit any machine."""

    min_product_share: float = 0.8
    """Least speed of the matrix product, as a share of the median of all ranks. Every step waits for the
    slowest rank, and equal GPUs differ by a few percent."""
    min_pair_share: float = 0.6
    """Least all-reduce bandwidth of a rank with the best of its partners, as a share of the median of all
    ranks. Paths through more switches are slower, a lost link or a wrong network halves it."""
    min_all_reduce_gigabytes_per_second: float = 0.0
    """Least bus bandwidth of an all-reduce over all ranks, in 10^9 bytes/s; 0 judges none, for what is right
    depends on the network."""
    min_disk_share: float = 0.25
    """Least speed of writing to or reading from --output, as a share of the median of all nodes. Nodes share
    the servers of a file system and disturb one another; a sick mount is slower by far."""
    min_free_gigabytes: float = 50.0
    """Least free space for --output, in 10^9 bytes: four checkpoints of the large model, 12 GB each."""
    min_memory_gigabytes: float = 8.0
    """Least free host memory for each rank, in 10^9 bytes: a process with torch and its loader workers, and
    the copy of its share of a checkpoint."""
    min_shared_memory_gigabytes: float = 1.0
    """Below this much free in /dev/shm, in 10^9 bytes, warn: NCCL and loader workers pass data through it,
    and containers often have 64 MB."""
    min_open_files: int = 4096
    """Below this limit of open files, warn: data of a hundred languages and the connections to all ranks."""
    max_clock_skew_seconds: float = 1.0
    """Most by which a node's clock may differ, in seconds. Synchronised clocks differ by milliseconds;
    beyond a second, times in logs and of files contradict each other."""
    min_clock_share: float = 0.5
    """Least SM clock under load, as a share of the GPU's highest. A power limit takes a third at most; a GPU
    that is stuck runs at a fraction."""
    max_gpu_celsius: float = 85.0
    """Above this temperature under load, in degrees Celsius, warn: GPUs slow down not far above it."""
    max_gpu_memory_gigabytes: float = 2.0
    """Most GPU memory in use before we use any, in 10^9 bytes. A driver and a context take less; more is held
    by another process."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            value, option = getattr(self, limit.name), limit.name.replace("_", "-")
            if value < 0:
                raise UserError(f"--{option} must be 0 or more, not {value}")
            if limit.name.endswith("_share") and value > 1:
                raise UserError(f"--{option} is a share, 0 to 1, not {value}")


@dataclass(frozen=True, kw_only=True)
class DoctorSettings:
    """Check the machines of a job before it: on every rank, started as the job will be.

    A table by node and the reasons go to stderr. If nodes are unfit, stdout has one line, `exclude
    NODE[,NODE]`, in the form of sbatch --exclude, and the exit code is 3. It is 0 if all is well, warnings or
    not, and 2 where other nodes would not help: a wrong option, a disk that is full for all.
    """

    output: Path | None = None
    """Folder of the coming run: speed and free space of its disk are measured on every node."""
    data: Path | None = None
    """Prepared data: every rank must read the same."""
    json: Path | None = None
    """Also write all measurements and findings to this file."""
    timeout_seconds: float = 180.0
    """Longest wait for all ranks to arrive, and for all to finish one measurement. Who is late is named.
    Importing torch from a busy file system takes minutes."""
    product_seconds: float = 2.0
    """Length of the matrix product: long enough for clocks and temperature to settle somewhat."""
    disk_megabytes: int = 256
    """Size of the file that is written, synced and read back, in 10^6 bytes."""
    message_megabytes: int = 64
    """Size of an all-reduce, in 10^6 bytes: about that of a gradient bucket."""
    local_rank: int = -1
    """For the deepspeed launcher, which gives it; nothing to set by hand."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for name in ("timeout_seconds", "product_seconds", "disk_megabytes", "message_megabytes"):
            if getattr(self, name) <= 0:
                raise UserError(f"--{name.replace('_', '-')} must be above 0, not {getattr(self, name)}")
        if self.json is not None and not self.json.absolute().parent.is_dir():
            raise UserError(f"--json: there is no folder {self.json.absolute().parent}")
