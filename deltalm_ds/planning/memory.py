"""A rank's memory in the course of a step, and the moment when it is most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deltalm_ds.planning.activations import Activations, MicroBatch, Way
from deltalm_ds.planning.gathering import visits_of
from deltalm_ds.planning.ledger import Ledger, Part
from deltalm_ds.planning.partitioned import PartitionedParameters, PartitionedStates
from deltalm_ds.planning.shapes import ModelShape, Unit
from deltalm_ds.planning.states import PartitionedInBf16, Replicated, States
from deltalm_ds.planning.zero import GRADIENT_BYTES, ZeroSettings

# Tokens at a time for which the CPU's feed-forward computes GELU, in a buffer that stays: ops/products.py.
_CPU_TOKENS = 1024
# What a process on a CPU takes beside tensors in its first steps: pages of libraries, Python's objects, gloo.
# Measured, as the same in steps of ZeRO 0 to 3 of a model of 14 million parameters.
_CPU_PROCESS = 36e6


@dataclass(frozen=True)
class Memory:
    """The most that a rank holds, in bytes."""

    total: float
    parts: Mapping[Part, float]
    """What is held at that moment."""
    phase: str
    """What is going on at that moment."""


def peak_memory(
    shape: ModelShape,
    zero: ZeroSettings,
    num_ranks: int,
    batch: MicroBatch,
    *,
    num_micro_steps: int = 1,
    every: int = 0,
    way: Way = "torch",
) -> Memory:
    """The peak of a step, once the optimizer has its moments.

    With several micro-batches a step the second finds gradients of the first. Building the model and loading
    weights is not a part of it, nor what the device itself takes.
    """
    ledger = Ledger()
    activations = Activations(shape.config, batch, zero.weight_bytes, way)
    states = _states(ledger, shape, zero, num_ranks, every, way == "cpu")
    walk = _Walk(ledger, shape, activations, states, every)
    ledger.phase = "between steps"
    states.start()
    if way == "cpu":
        ledger.hold("process", _CPU_PROCESS)
        rows = min(_CPU_TOKENS, max(batch.tokens("source"), batch.tokens("target")))
        ledger.hold("activations", rows * shape.config.feed_forward_width * zero.weight_bytes)
    for number in range(min(num_micro_steps, 2)):
        walk.forward()
        walk.backward()
        ledger.phase = "reduction"
        states.end_backward(number == min(num_micro_steps, 2) - 1)
    ledger.phase = "update"
    states.update()
    return Memory(ledger.peak_total, ledger.peak, ledger.peak_phase)


def _states(
    ledger: Ledger, shape: ModelShape, zero: ZeroSettings, num_ranks: int, every: int, is_cpu: bool
) -> States:
    if zero.path == "stage 3":
        return PartitionedParameters(ledger, shape, zero, num_ranks, every, is_cpu)
    if zero.path == "stages 1 and 2":
        return PartitionedStates(ledger, shape, zero, num_ranks, is_cpu)
    kind = Replicated if zero.path == "stage 0" else PartitionedInBf16
    return kind(ledger, shape, zero, num_ranks)


class _Walk:
    """Through the modules of a micro-batch, forward and back."""

    def __init__(
        self, ledger: Ledger, shape: ModelShape, activations: Activations, states: States, every: int
    ) -> None:
        self.ledger, self.shape, self.activations, self.states = ledger, shape, activations, states
        self.every = every
        visits = visits_of(shape, every)
        self._forward = [visit for visit in visits if visit.passing == "forward"]
        self._backward = visits[len(self._forward) :]
        self._lasts: dict[tuple[str, int | None], Unit] = {
            (unit.side, unit.layer): unit for unit in shape.units
        }
        """Of each layer the module that runs last."""
        self._table_gradient = shape.table_size * activations.number_bytes

    def forward(self) -> None:
        """Up to the loss, which takes the gradient of the output projection at once."""
        ledger, activations = self.ledger, self.activations
        ledger.phase = "forward pass"
        vectors = activations.hidden("both")
        for visit in self._forward:
            self.states.open(visit)
            if (unit := visit.unit) is not None:
                if unit.kind == "table":
                    ledger.hold("activations", vectors)
                ledger.touch("activations", activations.forward_extra(unit))
                ledger.hold("activations", activations.kept(unit))
                if self._is_recomputed(unit) and self._lasts[unit.side, unit.layer] is unit:
                    ledger.release("activations", self._let_go(unit))
            self.states.close(visit)
        ledger.phase = "loss"
        self._loss()
        ledger.release("activations", vectors)

    def _loss(self) -> None:
        ledger, activations = self.ledger, self.activations
        sums = self.shape.table_size * GRADIENT_BYTES if activations.num_chunks > 1 else self._table_gradient
        ledger.hold("gradients", sums)
        ledger.hold("activations", activations.hidden("target"))
        in_fp32 = activations.hidden("target") * GRADIENT_BYTES / activations.number_bytes
        with ledger.during("activations", in_fp32):
            ledger.touch("logits", activations.logits)
        if sums != self._table_gradient:
            ledger.hold("gradients", self._table_gradient)
            ledger.release("gradients", sums)

    def backward(self) -> None:
        """Back to the table, with the gradient of the hidden states and that of the encoder's output."""
        ledger, activations = self.ledger, self.activations
        ledger.phase = "backward pass"
        flow, of_encoder_output = activations.hidden("target"), 0.0
        side = "target"
        for visit in self._backward:
            self.states.open(visit)
            unit = visit.unit
            if unit is not None and visit.passing == "recomputation":
                ledger.touch("activations", activations.forward_extra(unit))
                # The layer's output has been kept.
                is_last = self._lasts[unit.side, unit.layer] is unit
                output = activations.hidden(unit.side) if is_last else 0
                ledger.hold("activations", activations.kept(unit) - output)
            elif unit is not None and unit.kind != "table" and visit.closes:
                if unit.side != side:  # the encoder's: the gradient of its output goes on
                    ledger.hold("activations", activations.hidden("source") if not of_encoder_output else 0)
                    ledger.release("activations", flow)
                    flow, side = activations.hidden("source"), unit.side
                if unit.kind == "cross-attention" and not of_encoder_output:
                    of_encoder_output = activations.hidden("source")
                    ledger.hold("activations", of_encoder_output)
                with ledger.during("activations", activations.backward_extra(unit)):
                    self.states.gradient(unit.parameters)
                ledger.release("activations", activations.kept(unit))
            self.states.close(visit)
        # Vectors' gradients, of both sides, in fp32, with the sums of equal tokens and the rows they go to.
        vectors = activations.hidden("both")
        ledger.touch("activations", vectors + 3 * vectors * GRADIENT_BYTES / activations.number_bytes)
        ledger.release("activations", flow + activations.kept(self.shape.units[0]))
        ledger.release("gradients", self._table_gradient)
        self.states.gradient(self.shape.units[0].parameters)

    def _is_recomputed(self, unit: Unit) -> bool:
        return unit.layer is not None and self.every > 0 and unit.layer % self.every == 0

    def _let_go(self, last: Unit) -> float:
        """What a recomputed layer has kept, but its output."""
        units = [unit for unit in self.shape.units if (unit.side, unit.layer) == (last.side, last.layer)]
        return sum(map(self.activations.kept, units)) - self.activations.hidden(last.side)
