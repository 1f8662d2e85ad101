import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deltalm_ds.training.monitor import Monitor, duration, read_metrics


def record(output, steps, resumed_at=0, offset=0.0):
    monitor = Monitor(output, resumed_at)
    for step in steps:
        monitor.record(step, "train", {"loss": step + offset, "gradient_norm": None})
    monitor.close()


def test_records_are_json_lines_and_curves(tmp_path):
    record(tmp_path, [1, 2])
    assert read_metrics(tmp_path) == [
        {"step": step, "kind": "train", "loss": float(step), "gradient_norm": None} for step in (1, 2)
    ]
    curves = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in curves.Scalars("train/loss")] == [(1, 1.0), (2, 2.0)]
    assert curves.Tags()["scalars"] == ["train/loss"]


def test_a_resumed_run_continues_the_same_curves(tmp_path):
    record(tmp_path, [1, 2, 3, 4])
    record(tmp_path, [3, 4, 5], resumed_at=2, offset=0.5)
    assert [(r["step"], r["loss"]) for r in read_metrics(tmp_path)] == [
        (1, 1.0),
        (2, 2.0),
        (3, 3.5),
        (4, 4.5),
        (5, 5.5),
    ]
    curves = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in curves.Scalars("train/loss")] == [
        (1, 1.0),
        (2, 2.0),
        (3, 3.5),
        (4, 4.5),
        (5, 5.5),
    ]


def test_a_line_cut_off_by_a_crash_is_forgotten(tmp_path):
    record(tmp_path, [1])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 2})[:6])
    record(tmp_path, [2], resumed_at=1)
    assert [r["step"] for r in read_metrics(tmp_path)] == [1, 2]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "00:00"), (61.4, "01:01"), (3723, "01:02:03"), (90061, "1 d 01:01:01")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_a_validation_that_is_due_again_is_recorded_once(tmp_path):
    record(tmp_path, [1, 2])
    for is_due in (True, True, False):
        monitor = Monitor(tmp_path, 2, is_due)
        if is_due:
            monitor.record(2, "validation", {"loss": 1.0})
        monitor.close()
    assert [(each["step"], each["kind"]) for each in read_metrics(tmp_path)] == [
        (1, "train"),
        (2, "train"),
        (2, "validation"),
    ]
