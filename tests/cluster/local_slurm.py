"""A real SLURM of two nodes with eight GPUs each, on this machine, for as long as a with block lasts.

    with LocalSlurm() as cluster:
        job = cluster.sbatch("slurm/pretrain_64gpu.sh", "--nodes", 2, "--ntasks-per-node", 2, site=site)
        job.wait_until(lambda: "step 20" in job.log())
        job.signal("USR1")
        job.wait_for("COMPLETED")

The GPUs are names, files that nothing computes on. Needs root, slurm-wlm and munge. Several may run at once:
each has folders, ports and sockets of its own. A requeued job starts again after some seven seconds, a node
whose slurmd is gone is noticed after some thirty.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from slurm_job import Job
from slurm_processes import processes_of, task_of

REPOSITORY = Path(__file__).resolve().parent.parent.parent

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "srun", "setpriv")

# The first is a name that this machine resolves, as a cluster's names are: ranks meet at it.
NODES = (socket.gethostname(), f"{socket.gethostname()}-b")
CPUS_PER_NODE = 64
GPUS_PER_NODE = 8

# Far above what the test machine has; nothing is confined to it.
_CONFIGURATION = """
ClusterName=test
SlurmctldHost=localhost
SlurmUser=root
SlurmctldPort={controller_port}
AuthType=auth/munge
AuthInfo=socket={scratch}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
MessageTimeout=30
KillWait=10
SlurmdTimeout=10
MinJobAge=7200
StateSaveLocation={scratch}/state
SlurmdSpoolDir={scratch}/%n
SlurmctldPidFile={scratch}/slurmctld.pid
SlurmdPidFile={scratch}/slurmd-%n.pid
NodeName={nodes} NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports}] {resources}
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
"""

_SECONDS_TO_START = 30.0
_SECONDS_TO_STOP = 10.0
_SECONDS_FOR_A_DAEMON_TO_STOP = 3.0
_SECONDS_FOR_A_COMMAND = 30.0


class LocalSlurm:
    """The cluster: its daemons, what is submitted to it, and what runs on it.

    environment: what jobs have beside this process's environment.
    """

    nodes = NODES

    def __init__(self, *, environment: Mapping[str, str] | None = None) -> None:
        # Paths of unix sockets end at 107 characters.
        self.scratch = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.scratch.chmod(0o711)  # munged's clients are to reach its socket
        self.configuration = self.scratch / "slurm.conf"
        inherited = {name: value for name, value in os.environ.items() if not _is_of_slurm(name)}
        self.environment = {**inherited, "SLURM_CONF": str(self.configuration), **(environment or {})}
        self.jobs: list[Job] = []
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = contextlib.ExitStack()
        self._write_configuration()

    def __enter__(self) -> LocalSlurm:
        missing = [name for name in PROGRAMS if shutil.which(name) is None]
        if missing or os.geteuid() != 0:
            raise RuntimeError(f"a SLURM of one's own needs root, slurm-wlm and munge; missing: {missing}")
        with contextlib.ExitStack() as stack:
            stack.callback(self._stop)
            self._start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(self, *command: object, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a command of SLURM, such as `scontrol`, as a user of the cluster would, in the repository."""
        words = [str(word) for word in command]
        options: dict[str, Any] = {"env": self.environment, "timeout": _SECONDS_FOR_A_COMMAND, **more}
        done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, **options)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}{done.stdout}")
        return done

    def sbatch(
        self,
        script: str | Path,
        *options: object,
        site: Path | None = None,
        arguments: tuple[object, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Job:
        """Submit a batch script with sbatch's options, the script's arguments, and a site file in place of
        slurm/site.sh."""
        variables = {**self.environment, **(environment or {})}
        if site is not None:
            variables["DELTALM_SITE"] = str(site)
        done = self.run("sbatch", "--parsable", *options, script, *arguments, env=variables)
        return self.job(done.stdout.strip())

    def job(self, number: str) -> Job:
        """The handle of a job that was submitted otherwise."""
        job = Job(self, number)
        self.jobs.append(job)
        return job

    def start_slurmd(self, node: str) -> None:
        """Start a node's slurmd, and return when the node is there."""
        self._spawn(f"slurmd-{node}", "slurmd", "-D", "-N", node)
        self.wait_until(lambda: self.node_state(node) in ("IDLE", "MIXED", "ALLOCATED", "COMPLETING"), 60)

    def kill_slurmd(self, node: str, *, with_steps: bool = False) -> None:
        """kill -9 for a node's slurmd; with its steps: for the slurmstepds and all processes of jobs too."""
        daemon = self._daemons.pop(f"slurmd-{node}")
        daemon.kill()
        daemon.wait()
        if with_steps:
            for process in self.processes(node):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    def node_state(self, node: str) -> str:
        """IDLE, MIXED, ALLOCATED, DOWN, …, without what may follow."""
        said = self.run("sinfo", "--noheader", "--Node", "--nodes", node, "--format=%T", check=False).stdout
        return said.split()[0].rstrip("*~#!%$@^-+").upper() if said else "UNKNOWN"

    def processes(self, node: str | None = None) -> list[psutil.Process]:
        """Processes that SLURM started: slurmstepds, batch scripts, sruns, tasks and all their children."""
        daemons = {daemon.pid for daemon in self._daemons.values()}
        return [process for process in processes_of(self.scratch, node) if process.pid not in daemons]

    def orphans(self) -> list[str]:
        """Processes of jobs, or of earlier starts of jobs, that do not run any more, described one a line."""
        running = {(job.number, job.restarts()) for job in self.jobs if job.is_active()}
        orphans = []
        for process in self.processes():
            task = task_of(process)
            if task is not None and (task.job, task.restarts) not in running:
                orphans.append(f"{process.pid}: {task} {task.command[:200]}")
        return orphans

    def wait_until(
        self, condition: Callable[[], object], seconds: float, what: Callable[[], str] = str
    ) -> None:
        """Return when `condition` holds; TimeoutError, with what `what` then says, after so many seconds."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds} s; {what()}\n{self.log_of_daemons()}")
            time.sleep(0.1)

    def log_of_daemons(self, lines: int = 15) -> str:
        """The last lines of every daemon's log."""
        logs = sorted(self.scratch.glob("*.log"))
        return "\n".join(
            f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
            for path in logs
        )

    def _write_configuration(self) -> None:
        ports = _free_ports(1 + len(NODES))
        text = _CONFIGURATION.format(
            scratch=self.scratch,
            controller_port=ports[0],
            nodes=",".join(NODES),
            host=socket.gethostname(),
            ports=",".join(map(str, ports[1:])),
            resources=f"CPUs={CPUS_PER_NODE} RealMemory=1000000 Gres=gpu:{GPUS_PER_NODE}",
        )
        self.configuration.write_text(text)
        for number in range(GPUS_PER_NODE):
            (self.scratch / f"gpu{number}").symlink_to(os.devnull)  # slurmd wants a device
        (self.scratch / "gres.conf").write_text(
            f"NodeName={','.join(NODES)} Name=gpu Count={GPUS_PER_NODE} "
            f"File={self.scratch}/gpu[0-{GPUS_PER_NODE - 1}]\n"
        )

    def _start(self) -> None:
        munge = {
            name: self.scratch / f"munge.{name}" for name in ("key", "socket", "pid", "daemon-log", "seed")
        }
        subprocess.run(["mungekey", "--create", f"--keyfile={munge['key']}"], check=True)
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "daemon-log"}
        options = [f"--{option}={munge[name]}" for option, name in {**files, "seed-file": "seed"}.items()]
        self._spawn("munged", "munged", "--foreground", "--force", "--num-threads=4", *options)
        self.wait_until(munge["socket"].exists, _SECONDS_TO_START)
        self._spawn("slurmctld", "slurmctld", "-D")
        for node in NODES:
            self._spawn(f"slurmd-{node}", "slurmd", "-D", "-N", node)
        self.wait_until(lambda: all(self.node_state(node) == "IDLE" for node in NODES), _SECONDS_TO_START)

    def _spawn(self, name: str, *command: str) -> None:
        log = self.scratch / f"{name}.log"
        with log.open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                # Should this process be killed, they are too.
                ["setpriv", "--pdeathsig", "KILL", *command],
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _stop(self) -> None:
        with contextlib.suppress(Exception):
            self.run("scancel", "--full", *(job.number for job in self.jobs), timeout=_SECONDS_TO_STOP)
        for name in sorted(self._daemons, reverse=True):  # the slurmds before slurmctld before munged
            self._daemons[name].terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(_SECONDS_FOR_A_DAEMON_TO_STOP)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        while left := processes_of(self.scratch):  # a slurmstepd first may leave what it started
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=_SECONDS_TO_STOP)
        shutil.rmtree(self.scratch)


def _is_of_slurm(variable: str) -> bool:
    return variable.startswith(("SLURM", "SBATCH_", "SRUN_", "SALLOC_", "DELTALM_SITE"))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(int(probe.getsockname()[1]))
        return ports
