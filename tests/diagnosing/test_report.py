from __future__ import annotations

import json

from made_measurements import gpu, healthy

from deltalm_ds.diagnosing.findings import verdict
from deltalm_ds.diagnosing.judging import judge
from deltalm_ds.diagnosing.measurements import Measurements, RankMeasurements
from deltalm_ds.diagnosing.report import as_json, describe
from deltalm_ds.diagnosing.settings import DoctorSettings, Limits


def report_of(measured: Measurements, limits: Limits | None = None) -> list[str]:
    findings = judge(measured, limits or Limits())
    return describe(measured, findings, verdict(findings, measured.nodes)).splitlines()


def test_a_table_by_node_and_a_line_for_the_bad_one() -> None:
    measured = healthy(2, 2)
    measured.ranks[3].gpu = gpu(uncorrected_errors=3, is_remapping_failed=True)
    measured.ranks[3].product = 1e14
    lines = report_of(measured)
    assert "python 3.11.7  torch 2.13.0  GPUs 8" in lines
    assert "all-reduce over 4 ranks: 40 GB/s (bus bandwidth)" in lines
    assert "4 x NVIDIA H100 80GB HBM3, driver 550.54.15" in lines
    heading, first, second = (
        line.split() for line in lines if line.startswith(("node ", "n1 ", "n2 ")) if "is bad" not in line
    )
    assert heading[:3] == ["node", "ranks", "TFLOP/s"]
    assert (first[:4], first[-1]) == (["n1", "2", "600", "50"], "well")
    assert (second[:4], second[-1]) == (["n2", "2", "100", "50"], "bad")
    (bad,) = (line for line in lines if "is bad" in line)
    assert bad.startswith("n2 is bad: GPU of rank 3: 3 uncorrected ECC errors")
    assert bad.count("; ") == 2
    assert lines[-1] == "unfit: start the job without n2"


def test_columns_of_what_was_not_measured_are_left_out() -> None:
    measured = Measurements(ranks=[RankMeasurements(rank=0, node="alone", joining="cpu", product=5e10)])
    lines = report_of(measured)
    assert "no GPU is used: GPU health was not checked" in lines
    (heading,) = (line.split() for line in lines if line.startswith("node "))
    assert heading == ["node", "ranks", "TFLOP/s", "state"]
    assert lines[-1] == "fit: 1 rank on 1 node"


def test_a_fault_of_all_is_said_to_be_one() -> None:
    lines = report_of(healthy(), Limits(min_free_gigabytes=1e6))
    assert sum("is bad: 10,000 GB free" in line for line in lines) == 3
    assert lines[-1].startswith("unfit, and no node more than the others")


def test_json_has_all() -> None:
    measured = healthy(2, 1)
    measured.ranks[1].failures["disk"] = "No space left on device"
    settings = DoctorSettings()
    findings = judge(measured, settings.limits)
    content = json.loads(as_json(measured, findings, verdict(findings, measured.nodes), settings))
    assert (content["exit_code"], content["exclude"]) == (3, ["n2"])
    assert content["findings"][0]["node"] == "n2"
    assert content["ranks"][0]["disk"]["write_bytes_per_second"] == 2e9
    assert content["limits"]["min_product_share"] == 0.8
