from __future__ import annotations

import errno
import json
import re
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from distributed import DistributedRun, Outcome, run_distributed
from training.tiny_run import FINGERPRINT, MODEL_CONFIG, TinyRun, find, new_store, resume, run_state

from deltalm_ds.errors import UserError
from deltalm_ds.training import checkpoints
from deltalm_ds.training.checkpoint_folder import RunState, fault_of
from deltalm_ds.training.checkpoints import CheckpointStore
from deltalm_ds.training.distributed import join_processes
from deltalm_ds.training.lease import LEASE
from deltalm_ds.training.resuming import claim

# ---- with a stand-in for DeepSpeed's engine, in this process


class StandInEngine:
    """Saves and loads one tensor as DeepSpeed's engine would."""

    def __init__(self, size: int = 1000) -> None:
        self.weights = torch.zeros(size)
        self.checkpoint_engine: Any = None

    def zero_nvme_offload_optimizer(self) -> bool:
        return False

    def use_node_local_storage(self) -> bool:
        return False

    def load_universal_checkpoint(self) -> bool:
        return False

    def save_checkpoint(self, folder: str, tag: str, client_state: object, save_latest: bool) -> None:
        assert not save_latest
        self.checkpoint_engine.create(None)
        self.checkpoint_engine.save({"weights": self.weights}, f"{folder}/{tag}/weights.pt")
        self.checkpoint_engine.commit(None)

    def load_checkpoint(self, folder: str, tag: str) -> tuple[str, dict[str, Any]]:
        self.weights = self.checkpoint_engine.load(f"{folder}/{tag}/weights.pt")["weights"]
        return tag, {}


class Store(NamedTuple):
    store: CheckpointStore
    engine: StandInEngine
    said: list[str]

    def save(self, step: int, **changes: Any) -> Path:
        self.engine.weights.fill_(step)
        return self.store.save(run_state(step, **changes))


@pytest.fixture(scope="module", autouse=True)
def group_of_one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    meeting = tmp_path_factory.mktemp("group") / "file"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Store]:
    def make(num_kept: int = 3) -> Store:
        engine, said = StandInEngine(), []
        lease = claim(tmp_path, said.append)
        store = CheckpointStore(tmp_path, engine, num_kept=num_kept, lease=lease, say=said.append)
        return Store(store, engine, said)

    return make


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name != LEASE)


def test_save_and_load(tmp_path: Path, make_store: Callable[..., Store]) -> None:
    folder = make_store().save(5)
    assert folder == tmp_path / "step_5"
    assert names(folder) == ["config.json", "manifest.json", "run.json", "weights.pt"]
    assert names(tmp_path) == ["latest", "step_5"]
    assert (tmp_path / "latest").read_text().strip() == "step_5"
    fresh = make_store()
    assert fresh.store.load(find(tmp_path)) == run_state(5)
    assert fresh.engine.weights.unique().tolist() == [5]


def test_a_snapshot_does_not_change_with_the_engine(tmp_path: Path, make_store: Callable[..., Store]) -> None:
    saver = make_store()
    saver.engine.weights.fill_(5)
    snapshot = saver.store.snapshot(run_state(5))
    saver.engine.weights.fill_(6)
    (aside,) = names(tmp_path)
    assert aside.startswith("step_5.")
    assert aside.endswith("-0-0.tmp")
    written = saver.store.write(snapshot)
    assert names(tmp_path / aside) == ["weights.pt"]
    saver.store.commit(written)
    fresh = make_store()
    fresh.store.load(find(tmp_path))
    assert fresh.engine.weights.unique().tolist() == [5]


def test_the_newest_are_kept(tmp_path: Path, make_store: Callable[..., Store]) -> None:
    saver = make_store(num_kept=2)
    for step in (1, 2, 10, 11):
        saver.save(step)
        (tmp_path / f"step_{step}.universal").mkdir()
    assert names(tmp_path) == ["latest", "step_10", "step_10.universal", "step_11", "step_11.universal"]


def test_broken_ones_do_not_count_and_are_replaced(tmp_path: Path, make_store: Callable[..., Store]) -> None:
    saver = make_store(num_kept=2)
    for step in (1, 2, 3):
        saver.save(step)
    (tmp_path / "step_3" / "weights.pt").write_bytes(b"")
    resumed = make_store(num_kept=2)
    assert resumed.store.load(find(tmp_path)).step == 2
    (tmp_path / "step_3.universal").mkdir()
    resumed.save(4)
    assert names(tmp_path) == ["latest", "step_2", "step_3", "step_3.universal", "step_4"]
    resumed.save(3)
    assert "replacing step_3, which was not whole" in resumed.said
    assert fault_of(tmp_path / "step_3") is None
    assert names(tmp_path) == ["latest", "step_3", "step_4"]


def test_a_whole_checkpoint_is_not_written_again(tmp_path: Path, make_store: Callable[..., Store]) -> None:
    saver = make_store()
    manifest = saver.save(3) / "manifest.json"
    before = manifest.stat().st_ino
    saver.save(3)
    assert manifest.stat().st_ino == before
    assert saver.said == ["step_3 is already there and whole"]
    assert names(tmp_path) == ["latest", "step_3"]


def test_leftovers_are_named_and_removed(tmp_path: Path, make_store: Callable[..., Store]) -> None:
    (tmp_path / "step_9.tmp").mkdir()
    (tmp_path / "step_8.universal.tmp").mkdir()
    saver = make_store()
    saver.save(1)
    assert names(tmp_path) == ["latest", "step_1"]
    assert [line.split()[1] for line in saver.said] == ["step_8.universal.tmp,", "step_9.tmp,"]


def test_no_space_is_told_before_anything_is_written(
    tmp_path: Path, make_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = make_store()
    saver.save(1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_048_576 + 3_999))
    with pytest.raises(
        UserError, match=r"no space .*step_2 .*needs 1,052,576 bytes, has 1,052,575; free space or"
    ):
        saver.save(2)
    assert names(tmp_path) == ["latest", "step_1"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_048_576 + 4_000))
    saver.save(2)
    assert fault_of(tmp_path / "step_2") is None


def test_a_failure_to_complete_a_checkpoint_keeps_the_one_before(
    tmp_path: Path, make_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    saver = make_store()
    saver.save(1)
    monkeypatch.setattr(checkpoints, "write_manifest", fail)
    with pytest.raises(OSError, match="Input/output error"):
        saver.save(2)
    assert names(tmp_path) == ["latest", "step_1"]


def test_a_disk_that_fills_up_meanwhile(
    tmp_path: Path, make_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    saver = make_store()
    saver.save(1)
    for function in ("write_synced", "write_manifest"):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoints, function, fail)
            with pytest.raises(UserError, match="free space or set --output elsewhere"):
                saver.save(2)
        assert names(tmp_path) == ["latest", "step_1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_config": {**MODEL_CONFIG, "width": 12}}, "another model: width is 10 there, 12 here"),
        (
            {"fingerprint": {**FINGERPRINT, "tokenizer": {"sha256": "x"}}},
            'data .*tokenizer.sha256 is "abc" there',
        ),
        ({"dtype": "bf16"}, "is in fp32, this run in bf16; set fp32 in the DeepSpeed JSON"),
        ({"zero_stage": 2}, 'set "zero_optimization": {"stage": 0} in the DeepSpeed JSON'),
    ],
)
def test_another_run_is_refused(
    tmp_path: Path, make_store: Callable[..., Store], changes: dict[str, Any], message: str
) -> None:
    make_store().save(1)
    with pytest.raises(UserError, match=message):
        find(tmp_path, **changes)


def test_a_checkpoint_older_than_the_choice_of_decoder_is_of_an_interleaved_one(
    tmp_path: Path, make_store: Callable[..., Store]
) -> None:
    make_store().save(1, model_config={"width": MODEL_CONFIG["width"], "rows": MODEL_CONFIG["rows"]})
    assert find(tmp_path).state.step == 1
    with pytest.raises(UserError, match='decoder is "interleaved" there, "standard" here'):
        find(tmp_path, model_config={**MODEL_CONFIG, "decoder": "standard"})


def test_other_data_can_be_allowed(tmp_path: Path, make_store: Callable[..., Store]) -> None:
    make_store().save(1)
    said: list[str] = []
    find(tmp_path, fingerprint={}, allow_changes=True, say=said.append)
    assert "of other data or objectives" in said[0]


def test_without_sharding_the_number_of_processes_is_free(
    tmp_path: Path, make_store: Callable[..., Store]
) -> None:
    make_store().save(1)
    assert not find(tmp_path, world_size=64).needs_universal


def test_num_kept_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        CheckpointStore(tmp_path, StandInEngine(), num_kept=0, lease=claim(tmp_path))


# ---- with DeepSpeed, in two processes

CASES = [(stage, dtype, False) for stage in (0, 1, 2, 3) for dtype in ("fp32", "bf16")] + [
    (0, "fp16", False),
    (2, "fp16", False),
    (2, "fp32", True),
    (3, "bf16", True),
]


def case_name(stage: int, dtype: str, offload: bool) -> str:
    return f"zero{stage}-{dtype}{'-offload' if offload else ''}"


def train_and_save(root: str) -> None:
    """Every case to step 5 with a checkpoint at step 3; failing saves; a save that never ends."""
    process = join_processes()
    results: dict[str, Any] = {}
    for stage, dtype, offload in CASES:
        name = case_name(stage, dtype, offload)
        run = TinyRun(stage, dtype, offload=offload)
        store = new_store(Path(root) / name, run)
        run.train(3, overflow_at=1 if dtype == "fp16" else None)
        before = run.digest()
        store.save(run.state())
        assert run.digest() == before
        results[name] = [before, run.summary(run.train(2))]

    directory = Path(root) / "failing"
    store = new_store(directory, run)
    store.save(run.state())
    run.train(1)
    results["failures"] = [_message(store, run.state(), rank) for rank in (1, 0, None)]
    results["left"] = names(directory)

    (Path(root) / f"results-{process.rank}.json").write_text(json.dumps(results))
    checkpoints.write_synced = _write_for_ever
    store.save(run.state())


def _message(store: CheckpointStore, state: RunState, failing_rank: int | None) -> list[str]:
    """What a save raises when files of one rank cannot grow, or (None) when one rank sees no space."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    disk_usage = shutil.disk_usage
    if dist.get_rank() == failing_rank:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    if failing_rank is None and dist.get_rank() == 1:
        shutil.disk_usage = lambda path: disk_usage(path)._replace(free=10)  # type: ignore[assignment]
    try:
        store.save(state)
    except (UserError, RuntimeError) as error:
        return [type(error).__name__, str(error)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        shutil.disk_usage = disk_usage
    return []


def _write_for_ever(value: object, path: Path) -> None:
    path.write_bytes(b"half a file")
    (path.parents[2] / f"in-last-save-{dist.get_rank()}").touch()
    time.sleep(600)


def resume_and_train(root: str) -> dict[str, Any]:
    """Every case from step 3 to step 5, and what the killed run left."""
    join_processes()
    results: dict[str, Any] = {}
    for stage, dtype, offload in CASES:
        name = case_name(stage, dtype, offload)
        run, *_ = resume(Path(root) / name, stage, dtype, offload)
        results[name] = [run.digest(), run.summary(run.train(2))]
    directory = Path(root) / "failing"
    run, store, resumable = resume(directory, stage, dtype, offload)
    run.train(1)
    store.save(run.state())
    results["killed"] = [resumable.folder.name, names(directory)]
    try:
        find(Path(root) / "nothing")
    except UserError as error:
        results["nothing"] = str(error)
    return results


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The results of `train_and_save` by rank, after kill -9 in the middle of its last save."""
    root = tmp_path_factory.mktemp("saved")
    run = DistributedRun(train_and_save, 2, {"root": str(root)})
    marks = [root / f"in-last-save-{rank}" for rank in (0, 1)]
    deadline = time.monotonic() + 300
    while run.first_failed is None and not all(mark.exists() for mark in marks):
        assert time.monotonic() < deadline
        run.poll()
        time.sleep(0.05)
    run.kill()
    outcomes = run.wait(0)
    assert [outcome.returncode for outcome in outcomes] == [-9, -9], outcomes[run.first_failed or 0].stderr
    return root, [json.loads((root / f"results-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def resumed(saved: tuple[Path, list[dict[str, Any]]]) -> list[Outcome]:
    return run_distributed(resume_and_train, 2, root=str(saved[0]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case_name(*case))
@pytest.mark.slow
def test_a_resumed_run_is_the_same_bit_for_bit(
    case: tuple[int, str, bool], saved: tuple[Path, list[dict[str, Any]]], resumed: list[Outcome]
) -> None:
    for rank in (0, 1):
        at_save, later = saved[1][rank][case_name(*case)]
        at_load, again = resumed[rank].value[case_name(*case)]
        assert at_load == at_save
        assert again == later
        assert later["skipped"] == (1 if case[1] == "fp16" else 0)


@pytest.mark.slow
def test_a_failure_of_one_rank_is_raised_by_all(saved: tuple[Path, list[dict[str, Any]]]) -> None:
    for rank in (0, 1):
        results = saved[1][rank]
        *failures, (space_kind, space_message) = results["failures"]
        for failing, (kind, message) in zip((1, 0), failures, strict=True):
            assert kind == "RuntimeError"
            assert "step_6 not saved" in message
            assert f"rank {failing}: OSError: [Errno 27] File too large" in message
        assert space_kind == "UserError"
        assert "has 10; free space" in space_message
        assert results["left"] == ["latest", "step_5"]


@pytest.mark.slow
def test_kill_9_in_a_save_leaves_the_checkpoint_before(
    saved: tuple[Path, list[dict[str, Any]]], resumed: list[Outcome]
) -> None:
    assert resumed[0].value["killed"] == ["step_5", ["latest", "step_5", "step_6"]]
    assert re.search(r"removing step_6\.\S+-0-0\.tmp, left by an interrupted save", resumed[0].stdout)
    assert "removing" not in resumed[1].stdout


@pytest.mark.slow
def test_every_rank_learns_that_there_is_nothing(resumed: list[Outcome]) -> None:
    assert resumed[0].value["nothing"] == resumed[1].value["nothing"]
    assert "there is none" in resumed[1].value["nothing"]
