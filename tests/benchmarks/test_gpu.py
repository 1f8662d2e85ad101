"""`make gpu` as a whole, on the kernels that are emulated on the CPU and on tiny problems."""

import json
import subprocess
import sys
from pathlib import Path

import gpu
import kernel_checks
import pytest
import torch
import ways
from goals import TINY

from deltalm_ds.model import DeltaLMConfig
from deltalm_ds.ops.cuda import choice, operations
from kernels import Demand

BATCH = ways.Batch(num_samples=2, source_length=6, target_length=3)
SIZES = {"width": 64, "num_heads": 1, "feed_forward_width": 64, "vocabulary_rows": 304, "mask_id": 200}


@pytest.fixture
def on_kernels(compiled, monkeypatch):
    monkeypatch.setitem(operations._kernels, "cpu", compiled)
    monkeypatch.setattr(choice, "_choices", {})
    monkeypatch.setenv(choice.VARIABLE, "kernel")


@pytest.mark.usefixtures("on_kernels")
def test_all_parts_are_run_and_written(tmp_path, monkeypatch):
    small = DeltaLMConfig.preset("tiny", num_encoder_layers=1, first_sentinel_id=201, **SIZES)
    monkeypatch.setattr(ways.DeltaLMConfig, "preset", lambda name: small)
    monkeypatch.setattr(ways, "WAYS", ("eager", "fused"))  # compiling takes a minute
    measured = tmp_path / "measured.json"
    measured.write_text('{"Another GPU": {"gelu": 1.5}}')
    suite = gpu.Suite(torch.device("cpu"), 60, lambda report: gpu.write(report, tmp_path, measured))
    suite.run(TINY, BATCH, rounds=2, presets=("base",))
    report = suite.report
    assert report.wrong == 0
    assert not report.left_out
    assert set(report.ratios) >= {"add_norm", "gelu", "cross_entropy", "adam"}
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert len(content["kernels"]) == 14
    assert [way["way"] for way in content["ways"]] == ["eager", "fused"]
    text = (tmp_path / "gpu.md").read_text()
    assert f"{len(report.checks)} of {len(report.checks)} comparisons are right" in text
    assert "| base | fused |" in text
    assert "times mean nothing" in text
    known = json.loads(measured.read_text())
    assert known["Another GPU"] == {"gelu": 1.5}
    assert known[report.machine["gpu"]] == report.ratios


@pytest.mark.usefixtures("on_kernels")
def test_parts_that_fail_or_find_no_time_are_named_as_left_out(monkeypatch):
    monkeypatch.setattr(kernel_checks, "check", lambda device, small: 1 / 0)
    saved = []
    suite = gpu.Suite(torch.device("cpu"), 1, lambda report: saved.append(report.markdown()))
    suite.run(TINY, BATCH, rounds=2, presets=("base",))
    assert suite.report.left_out == [
        "correctness, which failed: division by zero",
        "kernels, for want of time",
    ]
    assert len(saved) == 2
    assert "Left out: kernels, for want of time." in saved[-1]


@pytest.mark.usefixtures("on_kernels")
def test_a_wrong_kernel_is_found_and_not_recorded_as_measured(compiled, monkeypatch, tmp_path):
    right = compiled.gelu
    monkeypatch.setattr(compiled, "gelu", lambda x, bias: right(x, bias) * 1.01)
    found = kernel_checks.check(torch.device("cpu"), small=True, say=lambda text: None)
    wrong = [finding.name for finding in found if not finding.is_right]
    assert len(wrong) == 4
    assert all(name.startswith("bias + GELU") and name.endswith("result") for name in wrong)
    measured = tmp_path / "measured.json"
    measured.write_text("{}")
    report = gpu.Report({"gpu": "A GPU"}, checks=["WRONG gelu"], wrong=1, ratios={"gelu": 2.0})
    gpu.write(report, tmp_path, measured)
    gpu.write(gpu.Report({"gpu": "A GPU"}, ratios={"gelu": 2.0}), tmp_path / "unchecked", measured)
    assert measured.read_text() == "{}"
    assert "WRONG gelu" in (tmp_path / "gpu.md").read_text()


@pytest.mark.parametrize(
    ("demand", "is_met"),
    [
        (Demand("a", 2, 2.1), True),
        (Demand("a", 2, 1.9), False),
        (Demand("a", 2, None), None),
        (Demand("a", 2, 1.9, at_most=True), True),
        (Demand("a", 2, 2.1, at_most=True), False),
    ],
)
def test_demands(demand, is_met):
    assert demand.is_met is is_met


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_without_a_gpu_it_says_so_in_one_line():
    root = Path(gpu.FOLDER).parent
    script = [sys.executable, str(root / "benchmarks/gpu.py")]
    environment = {"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(script, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("make gpu: torch sees no CUDA GPU here")
