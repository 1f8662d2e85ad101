"""Weights placed into a model on the meta device: whole, or of each parameter this process's share (ZeRO-3).

Under ZeRO-3 no process ever has more of the model than its share and one module. DeepSpeed's zero.Init cuts
the parameters, module by module, but not what stands in them: it would take them whole, rounded to the run's
dtype, from rank 0. Here each process reads or draws its own share in fp32, of which DeepSpeed's part is the
rounding and of which the optimizer's masters are made later, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from torch import Tensor, nn

from deltalm_ds.model.new_weights import Weights, whole
from deltalm_ds.training.deepspeed_config import DeepSpeedConfig
from deltalm_ds.training.precision import TORCH_DTYPES
from deltalm_ds.weights import StoredWeights


def place_whole(model: nn.Module, weights: Weights) -> StoredWeights:
    """Give every parameter its fp32 numbers, on the CPU; returns them, which outlive a cast of the model."""
    placed = {name: whole(weights, name, meta.shape) for name, meta in model.named_parameters()}
    for name, parameter in model.named_parameters():
        _give_memory(parameter, placed[name])
    return StoredWeights({name: (tensor,) for name, tensor in placed.items()})


@torch.no_grad()
def place_shares(model: nn.Module, weights: Weights, config: DeepSpeedConfig) -> None:
    """Cut every parameter as ZeRO-3 does and give this process's part its numbers, in the run's dtype."""
    parameters_of = {
        module: dict(module.named_parameters(prefix, recurse=False))
        for prefix, module in model.named_modules()
    }
    # All are cut in the same place: memory of each one's own would leave holes between the shares.
    largest = max(_num_elements(parameters) for parameters in parameters_of.values())
    device, dtype = get_accelerator().current_device_name(), TORCH_DTYPES[config.dtype]
    place = torch.empty(largest, dtype=dtype, device=device)
    cut: Callable[[Iterable[nn.Parameter]], None] | None = None
    for module, parameters in parameters_of.items():
        offset = 0
        for parameter in parameters.values():
            memory = place[offset : offset + parameter.numel()]
            offset += parameter.numel()
            _give_memory(parameter, memory.view(parameter.shape))
        if cut is not None:
            cut(parameters.values())
        elif parameters:
            deepspeed.zero.Init(module=module, config_dict_or_path=config.resolved, dtype=dtype)
            first: Any = next(iter(parameters.values()))
            cut = first.convert_to_zero_parameters  # what Init did, without its groups of processes anew
        for name, parameter in parameters.items():
            part: Any = parameter
            part.ds_tensor.copy_(own_share(parameter, weights, name))
            # A second part, of zero_hpz_partition_size, would keep what there was: DeepSpeed cuts it anew.
            part.ds_secondary_tensor = None


def own_share(parameter: nn.Parameter, weights: Weights, name: str) -> Tensor:
    """This process's part of a parameter that ZeRO-3 has cut: fp32 on the CPU, zeros behind its end."""
    part: Any = parameter
    size: int = part.ds_tensor.numel()
    start = min(size * dist.get_rank(), part.ds_numel)
    stop = min(start + size, part.ds_numel)
    share = torch.zeros(size)
    share[: stop - start] = weights.part(name, start, stop)
    return share


def _num_elements(parameters: Mapping[str, nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters.values())


def _give_memory(parameter: nn.Parameter, tensor: Tensor) -> None:
    """Turn a parameter on the meta device into one of `tensor`; optimizers that know it still do."""
    torch.utils.swap_tensors(parameter, nn.Parameter(tensor, parameter.requires_grad))
