"""DeepSpeed steps our AdamW at every ZeRO stage as it steps torch's."""

from pathlib import Path

import torch
import torch.distributed as dist
from distributed import run_distributed
from on_cpu import KernelsOnCPU
from test_engine import made_engine, made_model, made_samples, run_step

from deltalm_ds.ops import FusedAdamW
from deltalm_ds.ops.cuda import choice, operations
from deltalm_ds.training.distributed import join_processes
from deltalm_ds.training.optimizer import OptimizerSettings, build_optimizer

CASES = [(0, "fp32"), (0, "bf16"), (1, "bf16"), (2, "fp32"), (2, "fp16"), (3, "bf16")]


def moved(folder, stage, dtype, way):
    """How a few steps change the weights, and the class of the optimizer."""
    choice._choices["adam", "cpu"] = way == "kernel"
    built = []

    def optimizer(model):
        # Of 1e-8, epsilon would make steps out of rounding errors, where gradients are 0 but for them.
        settings = OptimizerSettings(weight_decay=0.3, adam_epsilon=1e-3)
        built.append(build_optimizer(model, settings, torch.device("cpu")))
        return built[0]

    engine = made_engine(Path(folder), stage, dtype, 1, dist.get_world_size(), optimizer=optimizer)
    start = torch.cat([p.detach().float().flatten() for p in made_model().parameters()])
    for _ in range(4):
        engine.set_learning_rate(0.01)
        run_step(engine, made_samples(), 1)
    weights = engine.full_weights()
    engine.deepspeed.destroy()
    if dist.get_rank():
        return None, built[0]
    return torch.cat([weight.float().flatten() for weight in weights.values()]) - start, built[0]


def both_ways(folder, library):
    """The largest relative distance between the two ways' moves, for each case."""
    join_processes()
    operations.use(KernelsOnCPU(Path(library)), "cpu")
    distances = []
    for stage, dtype in CASES:
        (ours, own), (theirs, other) = (moved(folder, stage, dtype, way) for way in ("kernel", "reference"))
        assert isinstance(own, FusedAdamW)
        assert isinstance(other, torch.optim.AdamW)
        if ours is not None:
            distances.append(float((ours - theirs).norm() / theirs.norm()))
    return distances


def test_every_stage_steps_our_optimizer_as_torchs(tmp_path, library):
    outcomes = run_distributed(both_ways, 2, folder=str(tmp_path), library=str(library))
    assert len(outcomes[0].value) == len(CASES)
    for case, distance in zip(CASES, outcomes[0].value, strict=True):
        assert distance < (1e-5 if case[1] == "fp32" else 2e-2), case
