"""States whose gradients, and at stage 3 weights, are parts: see states.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from deltalm_ds.planning.communication import filled_buckets, flat_sizes, padded_size
from deltalm_ds.planning.gathering import Scene, Visit, persistent, replay
from deltalm_ds.planning.ledger import Ledger
from deltalm_ds.planning.shapes import ModelShape, Parameter
from deltalm_ds.planning.states import MASTER_BYTES, MOMENT_BYTES, Replicated
from deltalm_ds.planning.zero import GRADIENT_BYTES, ZeroSettings

# DeepSpeed takes gradient norms in fp64, on a copy of each gradient.
_NORM_BYTES = 8


class PartitionedStates(Replicated):
    """Stages 1 and 2: masters and moments of a part; stage 2 reduces while it computes and keeps its part.

    In bf16 the part's gradients are summed in a flat fp32 buffer. In fp32 they lie in a buffer for the whole
    of each parameter that the part touches, and are laid out flat for the update.
    """

    def __init__(
        self, ledger: Ledger, shape: ModelShape, zero: ZeroSettings, num_ranks: int, is_cpu: bool
    ) -> None:
        super().__init__(ledger, shape, zero, num_ranks)
        self.is_cpu = is_cpu
        self._bucket = Bucket(ledger, zero, is_cpu)
        self._parts = [size // num_ranks for size in flat_sizes(shape, num_ranks)]
        self._owners = owners_of(shape, num_ranks)
        self._waiting: list[Parameter] = []
        self._has_part = False
        self._sums_flat = zero.dtype != "fp32"

    def start(self) -> None:
        """All weights, flat; masters, in fp32 a second copy of the weights, and moments of a part."""
        numbers = sum(self._parts)
        self.ledger.hold("weights", numbers * self.num_ranks * self.zero.weight_bytes)
        self.ledger.hold("optimizer", numbers * (MASTER_BYTES + MOMENT_BYTES))

    def gradient(self, parameters: Iterable[Parameter]) -> None:
        """Stage 2 moves them to its bucket, stage 1 keeps them until the last micro-batch."""
        self._bucket.open()
        for parameter in parameters:
            if self.zero.stage == 2:
                self.ledger.hold("gradients", parameter.size * self.zero.weight_bytes)
                self._move(parameter)
            else:
                super().gradient((parameter,))

    def end_backward(self, is_last: bool) -> None:
        """What is left in the bucket is reduced; stage 1 reduces all, when it is the last micro-batch."""
        self._has_gradients = True
        if self.zero.stage == 1 and is_last:
            for group in self.shape.optimizer_groups:
                for parameter in group:
                    self._move(parameter)
        self._reduce()
        self._bucket.close()

    def _move(self, parameter: Parameter) -> None:
        """From the parameter's own gradient to the bucket, which is reduced before it would overflow."""
        filled = sum(each.size for each in self._waiting)
        if self._waiting and filled + parameter.size > self.zero.reduce_bucket:
            self._reduce()
            self._bucket.swap()
        self._waiting.append(parameter)
        if parameter.size <= self.zero.reduce_bucket:
            self._bucket.fill(sum(each.size for each in self._waiting))
            self.ledger.release("gradients", parameter.size * self.zero.weight_bytes)

    def _reduce(self) -> None:
        numbers = sum(parameter.size for parameter in self._waiting)
        # Slices of several ranks' parts are laid out flat, in the weights' dtype, then in fp32.
        ranks = {rank for parameter in self._waiting for rank in self._owners[parameter.number]}
        flat = numbers * self.zero.weight_bytes if len(ranks) > 1 else 0
        with self.ledger.during("buckets", flat + numbers * (GRADIENT_BYTES if self._sums_flat else 0)):
            if self._sums_flat:
                self._hold_part()
        if not self._sums_flat and self._waiting:
            self._hold_part()
        for parameter in self._waiting:
            if parameter.size > self.zero.reduce_bucket:
                self.ledger.release("gradients", parameter.size * self.zero.weight_bytes)
        self._waiting.clear()

    def _hold_part(self) -> None:
        if not self._has_part:
            self._has_part = True
            self.ledger.hold("gradients", self._part_numbers() * GRADIENT_BYTES)

    def _part_numbers(self) -> int:
        if self._sums_flat:
            return sum(self._parts)
        touched = [0] * self.num_ranks
        for parameter in self.shape.parameters:
            for rank in self._owners[parameter.number]:
                touched[rank] += parameter.size
        return max(touched)

    def update(self) -> None:
        """Norms, then each group of the part by itself; then the weights are gathered."""
        largest = max(parameter.size for parameter in self.shape.parameters)
        self.ledger.touch("gradients", min(largest, max(self._parts)) * _NORM_BYTES)
        if not self._sums_flat:
            self.ledger.touch("gradients", max(self._parts) * GRADIENT_BYTES)
        self.ledger.release("gradients", self._part_numbers() * GRADIENT_BYTES)
        self._has_part = False
        if self.is_cpu and self.num_ranks > 1:  # gloo gathers into a buffer of its own
            self.ledger.touch("buckets", max(self._parts) * self.num_ranks * self.zero.weight_bytes)


class PartitionedParameters(Replicated):
    """Stage 3: weights are a part too, and gathered around each module."""

    def __init__(
        self,
        ledger: Ledger,
        shape: ModelShape,
        zero: ZeroSettings,
        num_ranks: int,
        every: int,
        is_cpu: bool,
    ) -> None:
        super().__init__(ledger, shape, zero, num_ranks)
        self.is_cpu = is_cpu
        self._scenes, self._end = replay(shape.config, zero, every)
        self._coming: Iterator[Scene] = iter(self._scenes)
        self._bucket = Bucket(ledger, zero, is_cpu)
        self._part = sum(padded_size(parameter, num_ranks) for parameter in shape.parameters) // num_ranks
        self._waiting: list[Parameter] = []
        self._in_forward = True
        self._outlived = 0.0

    def start(self) -> None:
        """Parts of weights, masters and moments, the gradients' part, a bucket, small parameters whole."""
        self.ledger.hold("weights", self._part * self.zero.weight_bytes)
        # In fp32 too: DeepSpeed would spare the copy, but takes the devices of both for different ones.
        self.ledger.hold("optimizer", self._part * (MASTER_BYTES + MOMENT_BYTES))
        self.ledger.hold("gradients", self._part * GRADIENT_BYTES)
        self._bucket.open()
        sizes = [p.size for p in self.shape.parameters if p.size <= self.zero.reduce_bucket]
        self._bucket.fill(max(filled_buckets(sizes, self.zero.reduce_bucket), default=0))  # by earlier steps
        for parameter in persistent(self.shape, self.zero):
            self.ledger.hold("weights", self._gathered((parameter,)))

    def open(self, visit: Visit) -> None:
        """Gathers what it needs, and what comes next."""
        if self._in_forward and visit.passing != "forward":
            self._in_forward = False
            self.ledger.release("weights", self._outlived)
            self._outlived = 0.0
        self._scene = next(self._coming)
        assert self._scene.visit == visit
        for change in self._scene.before:
            self._apply(change.what, change.parameters)

    def close(self, visit: Visit) -> None:
        """Lets go of it."""
        for change in self._scene.after:
            is_table = self._in_forward and change.parameters[0].size == self.shape.table_size
            if change.what == "release" and is_table:  # the loss still holds its numbers
                self._outlived += self._gathered(change.parameters)
            else:
                self._apply(change.what, change.parameters)

    def _apply(self, what: str, parameters: tuple[Parameter, ...]) -> None:
        size = self._gathered(parameters)
        if what == "gather":
            self.ledger.hold("buckets" if len(parameters) > 1 else "weights", size)
            if self.is_cpu:  # gloo gathers into a buffer of its own
                self.ledger.touch("buckets", size)
        elif what == "unpack" and len(parameters) > 1:
            self.ledger.hold("weights", size)
        elif what == "drop" and len(parameters) > 1:
            self.ledger.release("buckets", size)
        elif what == "release":
            self.ledger.release("weights", size)

    def _gathered(self, parameters: Iterable[Parameter]) -> float:
        if self.num_ranks == 1:  # the part is the whole
            return 0.0
        sizes = (padded_size(parameter, self.num_ranks) for parameter in parameters)
        return float(sum(sizes) * self.zero.weight_bytes)

    def gradient(self, parameters: Iterable[Parameter]) -> None:
        """Moves them to the bucket."""
        for parameter in parameters:
            self.ledger.hold("gradients", parameter.size * self.zero.weight_bytes)
            filled = sum(each.size for each in self._waiting)
            if self._waiting and filled + parameter.size > self.zero.reduce_bucket:
                self._scatter()
            self._waiting.append(parameter)
            if parameter.size <= self.zero.reduce_bucket:
                self._bucket.fill(sum(each.size for each in self._waiting))
                self.ledger.release("gradients", parameter.size * self.zero.weight_bytes)

    def _scatter(self) -> None:
        numbers = sum(padded_size(parameter, self.num_ranks) for parameter in self._waiting)
        copies = (len(self._waiting) > 1) + self.is_cpu  # each rank's slices together; gloo's own buffer
        alone = [parameter for parameter in self._waiting if parameter.size > self.zero.reduce_bucket]
        if alone and self.zero.dtype != "fp32":
            copies += 1  # it has not been through the fp32 bucket
        self.ledger.touch("buckets", copies * numbers * GRADIENT_BYTES)
        for parameter in alone:
            self.ledger.release("gradients", parameter.size * self.zero.weight_bytes)
        self._waiting.clear()

    def end_backward(self, is_last: bool) -> None:
        """What is left in the bucket is reduced, what is left of the weights goes."""
        self._scatter()
        for change in self._end:
            self._apply(change.what, change.parameters)
        self._coming = iter(self._scenes)
        self._in_forward = True

    def update(self) -> None:
        """Norms, then each sub-group, its gradients copied flat."""
        largest = max(parameter.size for parameter in self.shape.parameters)
        self.ledger.touch("gradients", -(-largest // self.num_ranks) * _NORM_BYTES)
        self.ledger.touch("gradients", min(self._part, self.zero.sub_group) * GRADIENT_BYTES)


class Bucket:
    """The buffer that gradients are moved to; on a CPU its memory counts as far as it was ever filled."""

    def __init__(self, ledger: Ledger, zero: ZeroSettings, is_cpu: bool) -> None:
        self.ledger, self.is_cpu = ledger, is_cpu
        is_fp32 = zero.stage == 3 or zero.dtype == "fp32"
        self._number_bytes = GRADIENT_BYTES if is_fp32 else zero.weight_bytes
        self._size = zero.reduce_bucket
        self._filled = [0, 0] if zero.overlaps and zero.stage == 2 else [0]
        self._index = 0
        self._held = 0.0

    def open(self) -> None:
        """Allocate it, unless it is there."""
        if not self._held and not self.is_cpu:
            self._hold(len(self._filled) * self._size)

    def fill(self, numbers: int) -> None:
        """So far."""
        more = numbers - self._filled[self._index]
        if self.is_cpu and more > 0:
            self._filled[self._index] = numbers
            self._hold(more)

    def swap(self) -> None:
        """Go on with the other one, if there are two."""
        self._index = (self._index + 1) % len(self._filled)

    def close(self) -> None:
        """Free it."""
        self.ledger.release("buckets", self._held)
        self._held, self._index, self._filled = 0.0, 0, [0] * len(self._filled)

    def _hold(self, numbers: int) -> None:
        self.ledger.hold("buckets", numbers * self._number_bytes)
        self._held += numbers * self._number_bytes


def owners_of(shape: ModelShape, num_ranks: int) -> dict[int, range]:
    """By each parameter's number the ranks whose part of its flat group has something of it."""
    owners = {}
    for group, flat in zip(shape.optimizer_groups, flat_sizes(shape, num_ranks), strict=True):
        part, start = flat // num_ranks, 0
        for parameter in group:
            end = start + parameter.size
            owners[parameter.number] = range(start // part, (end - 1) // part + 1)
            start = end
    return owners
