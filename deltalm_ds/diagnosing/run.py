"""The check-up from beginning to end: meet, measure, judge, tell."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.diagnosing.clocks import compare_clocks
from deltalm_ds.diagnosing.disk import measure_disk
from deltalm_ds.diagnosing.findings import EXIT_UNFIT, EXIT_WELL, Finding, blamed, ranks_in_words, verdict
from deltalm_ds.diagnosing.gpus import gpu_at_rest, has_nvidia_smi, product_under_watch
from deltalm_ds.diagnosing.judging import judge
from deltalm_ds.diagnosing.launch import Launch, find_launch, nodes_lacking_ranks
from deltalm_ds.diagnosing.measurements import STAGES, Measurements, RankMeasurements
from deltalm_ds.diagnosing.meeting import Meeting, Posted, RankZeroIsMissingError
from deltalm_ds.diagnosing.network import measure_all_reduce, measure_pair, pairings
from deltalm_ds.diagnosing.product import measure_product
from deltalm_ds.diagnosing.report import as_json, describe
from deltalm_ds.diagnosing.resources import resources
from deltalm_ds.diagnosing.settings import DoctorSettings
from deltalm_ds.diagnosing.versions import versions
from deltalm_ds.files import write_text_atomically

Say = Callable[[str], object]


def examine(settings: DoctorSettings, say: Say, tell: Say) -> int:
    """Check all ranks up, on every rank; the exit code of this one. `say` is for people, `tell` for programs.

    Rank 0 has the verdict's exit code and the others 0, unless rank 0 is not to be found.
    UserError for a launch that does not say where rank 0 is, and for a port that is taken.
    """
    launch = find_launch(os.environ)
    try:
        return _Examination(settings, launch, say, tell).run()
    except RankZeroIsMissingError as error:
        say(f"deltalm-ds doctor: rank {launch.rank} on {launch.node}: {error}")
        # Rank 0 would be the one to speak. That it is not there, its host itself says by refusing.
        if error.is_refused and launch.rank == 1 and launch.expected:
            tell(f"exclude {next(iter(launch.expected))}")
        return EXIT_UNFIT


class _Examination:
    """All ranks run the same stages; rank 0 holds what was measured."""

    def __init__(self, settings: DoctorSettings, launch: Launch, say: Say, tell: Say) -> None:
        self._settings, self._launch, self._say, self._tell = settings, launch, say, tell
        self._measured = Measurements(ranks=[])
        self._nodes: list[str] = []
        self._device = torch.device("cpu")
        self._meeting = Meeting(launch, settings.timeout_seconds, self._absent)

    def run(self) -> int:
        self._arrive()
        self._measure_alone()
        if self._all_go_on("joining", self._can_join()):
            self._stage("joining", self._join)
            if self._all_go_on("computing", not self._has_failed("joining")):
                self._measure_devices()
                has_others = self._launch.world_size > 1
                if self._all_go_on("reducing", has_others and not self._has_failed("product")):
                    self._measure_network()
                self._announce("leaving")
                self._gather("leaving", dist.destroy_process_group)
        code = self._meeting.share("exit code", self._judge() if self._meeting.is_first else None)
        self._meeting.leave()
        # Rank 0 goes last and answers for all: at the first that fails, a launcher kills those still there.
        return int(code) if self._meeting.is_first else EXIT_WELL

    def _arrive(self) -> None:
        self._announce("arrival", f" of {self._launch.world_size} ranks at {self._launch.address}")
        arrived = self._meeting.gather("arrival", lambda: self._launch.node)
        self._nodes = self._meeting.share("nodes", [posted.value for posted in arrived])
        ranks = [RankMeasurements(rank=rank, node=node) for rank, node in enumerate(self._nodes)]
        self._measured = Measurements(ranks=ranks)

    def _measure_alone(self) -> None:
        """What a rank measures without a process group."""
        settings, rank = self._settings, self._launch.rank
        first_of_node = [self._nodes.index(node) for node in dict.fromkeys(self._nodes)]
        self._stage("versions", versions)
        self._stage("resources", resources)
        if settings.data is None:
            self._announce("data", ": skipped, there is no --data")
        else:
            data = settings.data
            self._stage("data", lambda: Corpus.open(data).fingerprint)
        if settings.output is None:
            self._announce("disk", ": skipped, there is no --output")
        else:
            output, num_bytes = settings.output, settings.disk_megabytes * 10**6
            self._stage("disk", lambda: measure_disk(output, num_bytes) if rank in first_of_node else None)
        self._stage("clock", lambda: compare_clocks(self._meeting, first_of_node[1:]))

    def _can_join(self) -> bool:
        """Not if only some see GPUs: each kind would wait for the other."""
        numbers = {(rank.versions or {}).get("GPUs") for rank in self._measured.ranks}
        return "0" not in numbers or len(numbers) == 1

    def _join(self) -> str:
        from deltalm_ds.training.distributed import join_processes  # imports DeepSpeed: seconds

        if self._launch.world_size > 1:  # else it makes a group of one
            os.environ |= self._variables()
        self._device = join_processes().device
        return self._device.type

    def _variables(self) -> dict[str, str]:
        """What torch and DeepSpeed read: the group is made where the ranks have met, however launched."""
        launch, local_rank = self._launch, self._launch.local_rank
        if local_rank is None:
            local_rank = self._nodes[: launch.rank].count(launch.node)
        if torch.cuda.device_count() == 1:  # SLURM may show each task its own GPU only
            local_rank = 0
        return {
            "RANK": str(launch.rank),
            "WORLD_SIZE": str(launch.world_size),
            "LOCAL_RANK": str(local_rank),
            "LOCAL_WORLD_SIZE": str(self._nodes.count(launch.node)),
            "MASTER_ADDR": launch.address,
            "MASTER_PORT": str(self._meeting.port),
        }

    def _measure_devices(self) -> None:
        device, seconds = self._device, self._settings.product_seconds
        has_gpu = device.type != "cpu" and has_nvidia_smi()

        def product() -> dict[str, Any]:
            if not has_gpu:
                return {"product": measure_product(device, seconds)}
            speed, at_work = product_under_watch(device, seconds)
            return {"product": speed, "gpu_at_work": at_work}

        self._stage("gpu", lambda: gpu_at_rest(device) if has_gpu else None)
        self._announce("product")
        for rank, posted in self._gather("product", product):
            for name, value in posted.value.items():
                setattr(rank, name, value)

    def _measure_network(self) -> None:
        """By pairs first: if something hangs, then two and not all."""
        device, num_bytes = self._device, self._settings.message_megabytes * 10**6
        own_rank, world_size = self._launch.rank, self._launch.world_size
        self._announce("pairs")
        for number, pairs in enumerate(pairings(self._nodes)):
            measure = partial(measure_pair, pairs, own_rank, device, num_bytes)
            measured = self._gather(f"pairs/{number}", measure)
            for rank, posted in measured:
                if posted.value is not None:
                    rank.pairs.append(posted.value)
        if self._all_go_on("reducing together", not self._has_failed("pairs")):
            self._announce("all_reduce")
            measured = self._gather("all_reduce", lambda: measure_all_reduce(device, num_bytes, world_size))
            if measured:
                self._measured.all_reduce = measured[0][1].value

    def _stage(self, stage: str, measure: Callable[[], Any]) -> None:
        """Measure what is named like the stage."""
        self._announce(stage)
        for rank, posted in self._gather(stage, measure):
            setattr(rank, stage, posted.value)

    def _gather(self, stage: str, measure: Callable[[], Any]) -> list[tuple[RankMeasurements, Posted]]:
        """On rank 0, what the ranks posted that did not fail."""
        gathered = list(zip(self._measured.ranks, self._meeting.gather(stage, measure), strict=False))
        for rank, posted in gathered:
            if posted.failure is not None:
                rank.failures[_name(stage)] = posted.failure
        return [(rank, posted) for rank, posted in gathered if posted.failure is None]

    def _has_failed(self, stage: str) -> bool:
        return any(stage in rank.failures for rank in self._measured.ranks)

    def _all_go_on(self, to: str, decision: bool) -> bool:
        return bool(self._meeting.share(f"whether {to}", decision))

    def _announce(self, stage: str, remark: str = "") -> None:
        if self._meeting.is_first:
            self._say(f"{list(STAGES).index(stage) + 1}/{len(STAGES)} {STAGES[stage]}{remark}")

    def _absent(self, stage: str, missing: list[int], posted: dict[int, Posted]) -> int:
        """Judge what there is, on rank 0, where some ranks do not come to the end of a stage."""
        if stage == "arrival":
            return self._conclude(self._late(missing, {rank: there.value for rank, there in posted.items()}))
        name = _name(stage)
        failures = {rank: there.failure for rank, there in posted.items() if there.failure is not None}
        failed, absent = blamed(name, list(failures), missing)
        for rank in failed:
            self._measured.ranks[rank].failures[name] = failures[rank]
        self._measured.absent[name] = absent
        return self._judge()

    def _late(self, missing: list[int], node_of: dict[int, str]) -> list[Finding]:
        ranks = [RankMeasurements(rank=rank, node=node) for rank, node in node_of.items()]
        self._measured = Measurements(ranks=ranks)
        reason = f"{ranks_in_words(missing)} did not arrive within {self._settings.timeout_seconds:g} s"
        nodes: list[str | None] = [*nodes_lacking_ranks(self._launch, node_of)]
        late = partial(Finding, check="arrival", reason=reason, is_of_machine=True)
        return [late(node=node) for node in nodes or [None]]

    def _judge(self) -> int:
        return self._conclude(judge(self._measured, self._settings.limits))

    def _conclude(self, findings: list[Finding]) -> int:
        """Tell people and programs, and return the exit code."""
        named = [finding.node for finding in findings if finding.node is not None]
        judged = verdict(findings, list(dict.fromkeys([*self._measured.nodes, *named])))
        self._say(describe(self._measured, findings, judged))
        if self._settings.json is not None:
            content = as_json(self._measured, findings, judged, self._settings)
            try:
                write_text_atomically(self._settings.json, content)
            except OSError as error:  # the disk may be what is ill: the verdict goes out all the same
                self._say(f"{self._settings.json} was not written: {error.strerror}")
        if judged.excluded:
            self._tell(f"exclude {','.join(judged.excluded)}")
        return judged.exit_code


def _name(stage: str) -> str:
    """Of a stage in rounds, "pairs/1", the name in STAGES."""
    return stage.split("/")[0]
