"""The shipped files in ds_configs/, read, accepted by the installed DeepSpeed and run on two processes."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from distributed import let_deepspeed_run_fp16, run_distributed

from deltalm_ds.training.deepspeed_config import RequestedBatch, read_deepspeed_config

FILES = sorted((Path(__file__).parents[2] / "ds_configs").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
@pytest.mark.parametrize("default_dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("world_size", [1, 3, 64])
def test_shipped_files(path, default_dtype, world_size):
    from deepspeed.runtime.config import DeepSpeedConfig as InstalledConfig

    config = read_deepspeed_config(
        path, RequestedBatch(2048, None), world_size, gradient_clipping=1.0, default_dtype=default_dtype
    )
    assert config.dtype == ("fp16" if "fp16" in path.name else default_dtype)
    assert config.zero_stage == int(path.name[4])
    assert config.offload_optimizer == ("offload" in path.name)
    assert "auto" not in config.to_json()
    installed = InstalledConfig(copy.deepcopy(config.resolved))
    assert installed.zero_optimization_stage == config.zero_stage
    assert installed.gradient_accumulation_steps == config.gradient_accumulation_steps
    assert installed.grad_accum_dtype == "fp32"


def test_there_are_five_shipped_files():
    names = ["zero1", "zero2", "zero2_fp16", "zero3", "zero3_offload"]
    assert [path.stem for path in FILES] == names


NUM_SAMPLES = 7


class SummedSquares(torch.nn.Module):
    """Tokens [tokens] → a loss summed over them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(64, 48)
        self.hidden = torch.nn.Linear(48, 40)
        self.output = torch.nn.Linear(40, 8)

    def forward(self, tokens):
        return self.output(torch.tanh(self.hidden(self.embedding(tokens)))).float().square().sum()


def micro_batches(config, world_size):
    """Uneven ones by [place][rank], the samples of each in one tensor."""
    generator = torch.Generator().manual_seed(1)
    samples = [torch.randint(0, 64, (3 + 11 * number,), generator=generator) for number in range(NUM_SAMPLES)]
    slots = world_size * config.gradient_accumulation_steps
    packed = [torch.cat(samples[slot::slots]) for slot in range(slots)]
    return [packed[start : start + world_size] for start in range(0, slots, world_size)]


def exact_gradient(batches, dtype, weight):
    """The float64 sum over micro-batches of the gradients in `dtype`, each of its loss times `weight`."""
    total = 0
    for batch in (batch for row in batches for batch in row):
        model = SummedSquares().to(dtype)
        (model(batch) * weight).backward()
        total = total + torch.cat([parameter.grad.double().flatten() for parameter in model.parameters()])
    return total


def step_with_every_file(files):
    """For each file: how far a step of SGD with rate 1 is from the exact gradient, and the norm."""
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # 25 s of compilation, for inference
    let_deepspeed_run_fp16()
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    rank, world_size = dist.get_rank(), dist.get_world_size()
    found = {}
    for path in files:
        config = read_deepspeed_config(
            Path(path),
            RequestedBatch(NUM_SAMPLES, 2),
            world_size,
            gradient_clipping=0.0,
            default_dtype="bf16",
        )
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[config.dtype]
        scale = 2.0 ** config.resolved["fp16"].get("initial_scale_power", 0)
        batches = micro_batches(config, world_size)
        weight = world_size / sum(len(batch) for row in batches for batch in row)
        exact = exact_gradient(batches, dtype, weight * scale) / (world_size * scale)

        model = SummedSquares()
        engine, *_ = deepspeed.initialize(
            model=model, optimizer=torch.optim.SGD(model.parameters(), lr=1.0), config=config.resolved
        )
        for place, row in enumerate(batches):
            engine.set_gradient_accumulation_boundary(place == len(batches) - 1)
            engine.backward(engine(row[rank]) * weight, scale_wrt_gas=False)
        engine.step()
        moved = [safe_get_full_fp32_param(parameter).double() for parameter in engine.module.parameters()]
        start = [parameter.to(dtype).double() for parameter in SummedSquares().parameters()]
        update = torch.cat([(m - s).flatten() for m, s in zip(moved, start, strict=True)])
        found[Path(path).stem] = {
            "update": float((update + exact).norm() / exact.norm()),
            "norm": float(engine.get_global_grad_norm()) / float(exact.norm()) - 1,
            "applied": engine.was_step_applied(),
        }
        engine.destroy()
    return found


def test_shipped_files_train_on_two_processes():
    outcomes = run_distributed(step_with_every_file, 2, files=[str(path) for path in FILES])
    assert outcomes[0].value == outcomes[1].value
    assert len(outcomes[0].value) == len(FILES)
    for name, found in outcomes[0].value.items():
        assert found["update"] < 1e-5, (name, found)  # a sum or a reduction in bf16 errs by 1e-3
        assert abs(found["norm"]) < 1e-5, (name, found)
        assert found["applied"], name
