"""What ZeRO-3 gathers and lets go, where it can be said by hand; counted runs are compared elsewhere."""

from __future__ import annotations

import dataclasses

import pytest

from deltalm_ds.model import DeltaLMConfig
from deltalm_ds.planning.configuration import zero_settings
from deltalm_ds.planning.gathering import persistent, replay, visits_of
from deltalm_ds.planning.shapes import shape_of

CONFIG = DeltaLMConfig.preset("tiny")
SHAPE = shape_of(CONFIG)


def settings(**changes):
    defaults = {"persistent_size": 1000, "max_reuse": 0, "prefetch_bucket": 0}
    return dataclasses.replace(zero_settings(3, "bf16"), **{**defaults, **changes})


def gathered(zero, every=0):
    scenes, _ = replay(CONFIG, zero, every)
    changes = [change for scene in scenes for change in scene.before]
    return [parameter for change in changes if change.what == "gather" for parameter in change.parameters]


def large():
    return {parameter.number for parameter in SHAPE.parameters if parameter.size > 1000}


@pytest.mark.parametrize("every", [0, 1, 2])
@pytest.mark.parametrize(
    "changes", [{}, {"prefetch_bucket": 10**6}, {"max_reuse": 10**6}, {"max_reuse": 10**9, "max_live": 10**6}]
)
def test_what_is_gathered_is_let_go(changes, every):
    scenes, end = replay(CONFIG, settings(**changes), every)
    held, buffers = set(), []
    for scene in scenes:
        for change in (*scene.before, *scene.after):
            numbers = {parameter.number for parameter in change.parameters}
            if change.what == "gather":
                assert not numbers & held
                buffers.append(numbers)
            elif change.what == "unpack":
                held |= numbers
            elif change.what == "drop":
                buffers.remove(numbers)
            else:
                held -= numbers
        needed = {parameter.number for parameter in scene.visit.parameters} & large()
        if scene.visit.opens and not scene.after:
            assert needed <= held
    held -= {parameter.number for change in end for parameter in change.parameters}
    assert not held & large()
    assert not buffers


def test_without_reuse_every_module_is_gathered_for_each_pass():
    counts = [p.number for p in gathered(settings())]
    # Forward and backward; the table's backward pass is visited twice, and it stays between.
    assert {number: counts.count(number) for number in large()} == dict.fromkeys(large(), 2)


def test_recomputation_gathers_once_more_where_a_layer_is_let_go_in_between():
    layer = SHAPE.units[3]
    assert (layer.kind, layer.layer) == ("self-attention", 0)
    numbers = {parameter.number for parameter in layer.parameters} & large()
    counts = [p.number for p in gathered(settings(), every=1)]
    assert {counts.count(number) for number in numbers} == {3}
    # Kept over the layer itself, a backward pass has the recomputation's.
    counts = [p.number for p in gathered(settings(max_reuse=10**6), every=1)]
    assert {counts.count(number) for number in numbers} == {2}


def test_with_much_reuse_a_model_is_gathered_once():
    counts = [p.number for p in gathered(settings(max_reuse=10**9))]
    assert sorted(counts) == sorted(large())


def test_prefetching_gathers_the_same_in_fewer_calls():
    def calls(zero):
        scenes, _ = replay(CONFIG, zero, 0)
        return sum(change.what == "gather" for scene in scenes for change in scene.before)

    alone, ahead = settings(max_reuse=10**9), settings(max_reuse=10**9, prefetch_bucket=10**7)
    assert sorted(p.number for p in gathered(alone)) == sorted(p.number for p in gathered(ahead))
    assert calls(ahead) < calls(alone) / 3


def test_small_parameters_are_kept():
    assert {p.number for p in persistent(SHAPE, settings())} == {p.number for p in SHAPE.parameters} - large()


def test_a_recomputed_layer_runs_again_before_its_last_module_s_backward_pass():
    visits = [visit for visit in visits_of(SHAPE, 1) if visit.unit and visit.unit.layer == 1]
    encoder = [visit for visit in visits if visit.unit.side == "source"]
    done = [(visit.unit.kind, visit.passing) for visit in encoder if visit.closes]
    assert done == [
        ("self-attention", "forward"),
        ("feed-forward", "forward"),
        ("self-attention", "recomputation"),
        ("feed-forward", "backward"),
        ("self-attention", "backward"),
    ]
