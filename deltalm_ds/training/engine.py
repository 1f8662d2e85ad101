"""One optimizer step on DeepSpeed, with what DeepSpeed leaves open made exact.

- The loss is the sum over tokens divided by the global number of labelled tokens, over all ranks and
  micro-batches, however uneven; micro-batches of one step are therefore known before the first runs.
- The optimizer's masters begin as the weights that were loaded, not as their rounding to 16 bits.
- Gradients are summed in fp32 whatever the model's dtype, at ZeRO stage 0 too.
- A step with a NaN or an infinity is skipped, in fp32 at stage 0 too, and reported.
- The loss scale of fp16 grows after a step is done: DeepSpeed 0.19 doubles it between the backward pass and
  the division by it, which halves the update of each such step.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_local_fp32_param,
    safe_set_full_fp32_param,
    safe_set_local_fp32_param,
)
from torch import Tensor, nn

from deltalm_ds.data.batches import MaskedBatch, MicroBatch
from deltalm_ds.model import DropoutState, PackedTokens
from deltalm_ds.model.new_weights import Weights, whole
from deltalm_ds.ops import CrossEntropy, SmoothingForm
from deltalm_ds.training.deepspeed_config import DeepSpeedConfig
from deltalm_ds.training.gathering import GatheredWeights, gather_shares
from deltalm_ds.training.placement import own_share, place_shares, place_whole


@dataclass(frozen=True)
class StepOutcome:
    """What one optimizer step did."""

    applied: bool
    """False where a NaN or an infinity in the gradient made it a skipped step."""
    gradient_norm: float
    """Norm of the global gradient before clipping."""
    loss_scale: float
    """Of fp16; 1 otherwise."""
    loss: float
    """In nats a token, over all ranks; label smoothing included."""
    is_spike: bool
    """Whether the loss is above the limit that `Engine.step` was given."""


@dataclass(frozen=True)
class _Seen:
    """A loss before the update."""

    loss: Tensor
    """In nats a token, a scalar on the host, complete once `has_come` has happened."""
    limit: float
    is_spike: Tensor
    """Whether it is above the limit, a scalar on the device."""
    has_come: torch.cuda.Event | None


class Engine:
    """A model on DeepSpeed."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: DeepSpeedConfig,
        weights: Weights,
        scratch: Path,
    ) -> None:
        """Give the model its weights, of which each process gets no more than its share under ZeRO-3.

        Args:
            model: on the meta device, the same on every rank.
            optimizer: of the model's parameters.
            config: DeepSpeed's.
            weights: what the model begins with; needed no longer afterwards.
            scratch: folder on a disk with room for the fp32 weights, where rank 0 has them in `full_weights`.
        """
        self.config = config
        self._scratch = scratch
        self._hyperparameters = [
            {name: value for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]
        self._is_sharded = config.zero_stage == 3
        if self._is_sharded:
            place_shares(model, weights, config)
        else:
            weights = place_whole(model, weights)
        self._frozen = {
            name: self._given(name, parameter, weights)
            for name, parameter in model.named_parameters()
            if not parameter.requires_grad
        }
        """What is not trained, as it was given, or this process's share: DeepSpeed has no masters of it."""
        self.deepspeed, *_ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=config.resolved, dist_init_required=False
        )
        self._has_plain_gradients = config.zero_stage == 0
        if self._has_plain_gradients and config.dtype == "bf16":
            # DeepSpeed sums in fp32 from stage 1 on; here autograd itself is told to.
            for parameter in self.deepspeed.module.parameters():
                if parameter.requires_grad:
                    parameter.grad_dtype = torch.float32
            # At this stage initialize has taken a step of zero gradients, which Adam's counters would keep.
            self.deepspeed.optimizer.optimizer.state.clear()
        if config.dtype != "fp32":
            self._set_masters(weights)

    def _set_masters(self, weights: Weights) -> None:
        """Give the optimizer's masters the weights as they were loaded: DeepSpeed takes them from 16 bits."""
        if self._has_plain_gradients:
            for name, master in self._plain_masters().items():
                master.data.copy_(whole(weights, name, master.shape))
            return
        set_master = safe_set_local_fp32_param if self._is_sharded else safe_set_full_fp32_param
        for name, parameter in self.module.named_parameters():
            if name not in self._frozen:
                set_master(parameter, self._given(name, parameter, weights).to(parameter.device))

    def _given(self, name: str, parameter: nn.Parameter, weights: Weights) -> Tensor:
        """A parameter as it was given, or this process's share of it: fp32, on the CPU."""
        if self._is_sharded:
            return own_share(parameter, weights, name)
        return whole(weights, name, parameter.shape)

    def full_weights(self) -> Any:
        """The fp32 weights by name: a Mapping[str, Tensor] with all of them on rank 0, without any elsewhere.

        They lie on the disk of the engine's scratch folder, so that no process has them all in memory; a
        tensor is read whenever it is asked for. Called by all ranks together.
        """
        parameters: dict[str, Any] = dict(self.module.named_parameters())
        plain = self._plain_masters() if self._has_plain_gradients else {}
        shapes = {
            name: parameter.ds_shape if self._is_sharded else parameter.shape
            for name, parameter in parameters.items()
        }
        is_first = dist.get_rank() == 0
        gathered = GatheredWeights(self._scratch, shapes) if is_first else None
        for name, parameter in parameters.items():
            pieces: Iterable[tuple[int, Tensor]]
            if self._is_sharded:
                share = self._frozen.get(name)
                share = safe_get_local_fp32_param(parameter) if share is None else share
                share = share.to(get_accelerator().current_device_name())
                pieces = gather_shares(share, parameter.ds_numel)
            elif name in self._frozen:
                pieces = [(0, self._frozen[name])]
            else:
                pieces = [(0, plain[name] if plain else safe_get_full_fp32_param(parameter))]
            for start, piece in pieces:
                if gathered is not None:
                    gathered.put(name, start, piece)
        return {} if gathered is None else gathered

    def _plain_masters(self) -> dict[str, Tensor]:
        """The fp32 masters by name at ZeRO stage 0, where every rank has them whole."""
        if self.config.dtype == "fp32":
            return dict(self.module.named_parameters())
        wrapped = self.deepspeed.optimizer
        name_of = {id(parameter): name for name, parameter in self.module.named_parameters()}
        return {
            name_of[id(half)]: master
            for halves, masters in zip(wrapped.fp16_groups, wrapped.fp32_groups, strict=True)
            for half, master in zip(halves, masters, strict=True)
        }

    @property
    def module(self) -> nn.Module:
        """The model itself."""
        return self.deepspeed.module

    @property
    def loss_scale(self) -> float:
        """The scale fp16 losses are multiplied by, 1 in other dtypes."""
        return float(self.deepspeed.optimizer.loss_scale) if self.config.dtype == "fp16" else 1.0

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use `learning_rate` in the next step."""
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = learning_rate

    def restore_hyperparameters(self) -> None:
        """Take weight decay, betas and clipping from this run's settings, not from a loaded checkpoint."""
        for group, values in zip(self.deepspeed.optimizer.param_groups, self._hyperparameters, strict=True):
            group.update(values)
        if hasattr(self.deepspeed.optimizer, "clip_grad"):
            self.deepspeed.optimizer.clip_grad = self.config.gradient_clipping

    def forward(
        self,
        batch: MicroBatch[Tensor],
        dropout: DropoutState | None,
        label_smoothing: float = 0.0,
        smoothing_form: SmoothingForm = "fairseq",
    ) -> CrossEntropy:
        """The summed losses of one micro-batch (tensors on this rank's device)."""
        source = PackedTokens(
            batch.source_tokens, batch.source_cumulative_lengths, batch.max_source_length, batch.sample_ids
        )
        predicted_from: PackedTokens | Tensor  # one token, or one place of the source, for each label
        if isinstance(batch, MaskedBatch):
            predicted_from = batch.places
        else:
            predicted_from = PackedTokens(
                batch.decoder_input,
                batch.target_cumulative_lengths,
                batch.max_target_length,
                batch.sample_ids,
            )
        sums = self.deepspeed(source, predicted_from, batch.labels, label_smoothing, smoothing_form, dropout)
        return CrossEntropy(*sums)

    def step(
        self,
        micro_batches: Sequence[MicroBatch[Tensor]],
        num_target_tokens: Tensor,
        dropout: DropoutState | None,
        label_smoothing: float = 0.0,
        smoothing_form: SmoothingForm = "fairseq",
        *,
        spike_limit: float = math.inf,
        skip_spikes: bool = False,
        between: Callable[[], object] = lambda: None,
    ) -> tuple[StepOutcome, list[CrossEntropy]]:
        """Forward and backward over this rank's micro-batches, then one update.

        `num_target_tokens`, a scalar, counts the labelled tokens of all ranks. Every rank must bring the
        same number of micro-batches; `between` is called before each of them but the first. With
        `skip_spikes` a loss above `spike_limit` makes no update.
        """
        losses: list[CrossEntropy] = []
        for number, batch in enumerate(micro_batches):
            if number:
                between()
            is_last = number == len(micro_batches) - 1
            self.deepspeed.set_gradient_accumulation_boundary(is_last)
            sums = self.forward(batch, dropout, label_smoothing, smoothing_form)
            losses.append(CrossEntropy(*(part.detach() for part in sums)))
            loss = sums.loss * (dist.get_world_size() / num_target_tokens.clamp(min=1)).float()
            if is_last:
                seen = self._loss_seen(losses, num_target_tokens, spike_limit)
                if skip_spikes:
                    # What is not finite makes no update, at any stage and in any dtype; nobody waits to know.
                    loss = loss * torch.where(seen.is_spike, math.inf, 1.0)
            self.deepspeed.backward(loss, scale_wrt_gas=False)
        return self._update(seen, skip_spikes), losses

    def _loss_seen(self, losses: Sequence[CrossEntropy], num_target_tokens: Tensor, limit: float) -> _Seen:
        """The step's loss over all ranks: it goes to the host ahead of the update, and is there after it."""
        total = torch.stack([sums.loss for sums in losses]).sum(dtype=torch.float64)
        dist.all_reduce(total)
        loss = total / num_target_tokens.clamp(min=1)
        if loss.device.type == "cpu":
            return _Seen(loss, limit, loss > limit, None)
        on_host = torch.empty((), dtype=torch.float64, pin_memory=True)
        on_host.copy_(loss, non_blocking=True)
        has_come = torch.cuda.Event()
        has_come.record()
        return _Seen(on_host, limit, loss > limit, has_come)

    def _update(self, seen: _Seen, skip_spikes: bool) -> StepOutcome:
        scale, scaling = self.loss_scale, self._dynamic_scaling()
        if self._has_plain_gradients:
            norm = self._plain_gradient_norm()
            finite = norm < float("inf")
            with self._without_update() if not finite and self.config.dtype == "fp32" else nullcontext():
                self.deepspeed.step()
            applied = finite and bool(self.deepspeed.was_step_applied())
        else:
            self.deepspeed.step()
            applied = bool(self.deepspeed.was_step_applied())
            norm = float(self.deepspeed.get_global_grad_norm())
        if applied and self.config.dynamic_loss_scale is not None:
            self._grow_loss_scale(self.config.dynamic_loss_scale.growth_interval)
        if seen.has_come is not None:
            seen.has_come.synchronize()
        is_spike = bool(seen.loss > seen.limit)
        if is_spike and skip_spikes:
            # The gradients were made infinite here: that says nothing against the loss scale.
            for name, value in scaling.items():
                setattr(self.deepspeed.optimizer.loss_scaler, name, value)
        return StepOutcome(applied, norm, scale, float(seen.loss), is_spike)

    def _dynamic_scaling(self) -> dict[str, Any]:
        """What an overflow changes of the loss scale's course; nothing where it has none."""
        if self.config.dynamic_loss_scale is None:
            return {}
        names = ("cur_scale", "cur_hysteresis", "last_overflow_iter")
        return {name: getattr(self.deepspeed.optimizer.loss_scaler, name) for name in names}

    @contextlib.contextmanager
    def _without_update(self) -> Iterator[None]:
        """DeepSpeed's step counts, and changes no weight and no moment: in fp32 it checks nothing itself."""
        for parameter in self.module.parameters():
            parameter.grad = None  # an optimizer of torch leaves such parameters alone
        self.deepspeed.clip_fp32_gradients = lambda: None  # which fails without any gradient
        yield
        del self.deepspeed.clip_fp32_gradients

    def _plain_gradient_norm(self) -> float:
        """Norm of the all-reduced gradients, NaN read as infinite: the same on every rank."""
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        return norm if norm == norm else float("inf")

    def _grow_loss_scale(self, interval: int) -> None:
        scaler: Any = self.deepspeed.optimizer.loss_scaler
        num_good_steps = scaler.cur_iter - scaler.last_overflow_iter - 1
        if num_good_steps % interval == 0:
            scaler.cur_scale *= scaler.scale_factor
            if not scaler.consecutive_hysteresis:
                scaler.cur_hysteresis = scaler.delayed_shift
