"""`make gpu-train` on the CPU and a tiny model: killed, resumed, written."""

import json

import gpu_train
import pytest

from deltalm_ds.ops.cuda import choice
from deltalm_ds.training.monitor import METRICS


@pytest.fixture(autouse=True)
def environment_is_put_back(monkeypatch):
    """What the script sets for its run would choose the kernels of later tests."""
    monkeypatch.setenv(choice.VARIABLE, "")


@pytest.mark.slow
def test_a_run_is_killed_resumed_and_described(small_corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = gpu_train.Settings(
        run=tmp_path / "run",
        data=small_corpus,
        preset="tiny",
        steps=12,
        kill_at=6,
        save_every=3,
        log_every=1,
        batch_size=2,
        micro_batch_size=2,
        results=tmp_path / "results",
    )
    gpu_train.main(settings)
    result = json.loads((settings.results / "gpu-train.json").read_text())
    assert 6 <= result["killed_at"] < 12
    assert list(result["losses"]) == [str(step) for step in range(1, 13)]
    assert result["tokens_per_second"] > 0
    text = (settings.results / "gpu-train.md").read_text()
    assert f"Killed with -9 after step {result['killed_at']} and resumed" in text
    assert (settings.results / "gpu-train.svg").read_text().startswith("<?xml")
    with pytest.raises(SystemExit, match="holds a run: remove it"):
        gpu_train.main(settings)


def test_a_run_that_fails_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_train, "_command", lambda settings, *more: ["false"])
    settings = gpu_train.Settings(run=tmp_path / "run", results=tmp_path)
    with pytest.raises(SystemExit, match="ended with 1 before step 120"):
        gpu_train.main(settings)
    assert not (settings.run / METRICS).exists()
