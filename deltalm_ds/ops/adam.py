"""AdamW whose step is one launch of the GPU's kernel."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from deltalm_ds.ops.cuda import operations
from deltalm_ds.ops.cuda.checks import ALIGNMENT, AdamTensors
from deltalm_ds.ops.cuda.kernels import AdamUpdate

_FP32_STATES = {"exp_avg", "exp_avg_sq", "master"}


class FusedAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter, 2019) as torch's has it, on devices that have our kernels.

    Parameters of fp32, such as the partitions that ZeRO hands over, are updated as they are. Of parameters
    of 16 bits an fp32 master is kept and trained, and they get its rounding in the same pass. States have
    torch's names ("step", "exp_avg", "exp_avg_sq", all fp32), and "master" stands beside them.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None, *, grad_scale: Tensor | None = None
    ) -> float | None:
        """Update all parameters that have a gradient.

        Gradients are multiplied by `grad_scale` (fp32 scalar on their device, as from clipping) on the way.
        If it is not finite, no weight or moment changes; the step counts all the same.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            launches: dict[tuple[int, torch.dtype, torch.dtype], list[AdamTensors]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self._state_of(parameter)
                state["step"] += 1
                alike = (int(state["step"]), parameter.grad.dtype, parameter.dtype)
                launches[alike].append(_tensors(parameter, state))
            for (step, *_), tensors in launches.items():
                operations.kernels_of(tensors[0].weight).adam(tensors, _update(group, step), grad_scale)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`; torch's own rounds states to the dtype of their parameter."""
        super().load_state_dict(state_dict)
        saved = itertools.chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        own = itertools.chain.from_iterable(group["params"] for group in self.param_groups)
        for number, parameter in zip(saved, own, strict=True):
            for name in _FP32_STATES & state_dict["state"].get(number, {}).keys():
                state = state_dict["state"][number][name]
                self.state[parameter][name] = state.to(parameter.device, torch.float32, copy=True)

    def _state_of(self, parameter: Tensor) -> dict[str, Any]:
        state = self.state[parameter]
        if not state:
            # On the host, where it is needed, as in torch's own that are not capturable.
            state["step"] = torch.tensor(0.0)
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(parameter, dtype=torch.float32)
            if parameter.dtype != torch.float32:
                state["master"] = parameter.detach().float()
        return state


def _tensors(parameter: Tensor, state: dict[str, Any]) -> AdamTensors:
    assert parameter.grad is not None
    grad = parameter.grad.contiguous()
    if grad.data_ptr() % ALIGNMENT:  # part of a larger tensor
        grad = grad.clone()
    moments = state["exp_avg"], state["exp_avg_sq"]
    if parameter.dtype == torch.float32:
        return AdamTensors(parameter, *moments, grad, None)
    return AdamTensors(state["master"], *moments, grad, parameter)


def _update(group: dict[str, Any], step: int) -> AdamUpdate:
    beta1, beta2 = group["betas"]
    learning_rate = float(group["lr"])
    return AdamUpdate(
        beta1=beta1,
        beta2=beta2,
        step_size=learning_rate / (1 - beta1**step),
        decay=1 - learning_rate * group["weight_decay"],
        root_of_correction=math.sqrt(1 - beta2**step),
        epsilon=group["eps"],
    )
