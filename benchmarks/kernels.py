"""Each kernel beside its peers: medians of 30 turns with a cold cache, against goals and measured ceilings.

`python benchmarks/kernels.py` on a CUDA machine with torch; deepspeed is not needed. `make gpu` runs it after
the checks of correctness and writes the results. torch.compile, Liger and apex compete where they run.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from goals import DTYPE, FULL, Contest, Goal, Sizes, contests
from problems import EPSILON, Function, Problem
from timing import Call, Ceilings, Clock, first_line
from torch import Tensor

from deltalm_ds.ops import FusedAdamW
from deltalm_ds.ops.cuda import choice

ROUNDS = 30
OURS = "ours"


@dataclass(frozen=True)
class Demand:
    """One goal and what came of it."""

    what: str
    needed: float
    reached: float | None
    """None: it could not be measured here."""
    at_most: bool = False

    @property
    def is_met(self) -> bool | None:
        """None where nothing was measured."""
        if self.reached is None:
            return None
        return self.reached <= self.needed if self.at_most else self.reached >= self.needed

    def __str__(self) -> str:
        reached = "not measured" if self.reached is None else f"{self.reached:.2f}"
        return f"{self.what} {'≤' if self.at_most else '≥'} {self.needed:g}: {reached}"


@dataclass(frozen=True)
class Row:
    """One direction of one problem, measured."""

    name: str
    operation: str
    seconds: dict[str, float]
    """Median by contender; ours among them."""
    work: float
    """Bytes or operations, at least."""
    is_bound_by_memory: bool
    share_of_ceiling: float
    demands: list[Demand]

    @property
    def verdict(self) -> str:
        """On all demands together."""
        met = [demand.is_met for demand in self.demands]
        if False in met:
            return "**not met**"
        return "met, as far as measured" if None in met else "met"

    def markdown(self) -> str:
        """One row of the table."""
        ours = self.seconds[OURS]
        unit = "TB/s" if self.is_bound_by_memory else "TFLOP/s"
        peers = ", ".join(
            f"{name} {seconds / ours:.2f}" for name, seconds in self.seconds.items() if name != OURS
        )
        return (
            f"| {self.name} | {ours * 1e6:,.0f} | {self.work / ours / 1e12:,.2f} {unit} "
            f"| {self.share_of_ceiling:.0%} | {peers or 'none'} | {', '.join(map(str, self.demands))} "
            f"| {self.verdict} |"
        )


HEAD = """\
| kernel | µs | rate | of ceiling | times as fast as | goals: reached | |
|---|---|---|---|---|---|---|
"""


class Measurement:
    """All problems in one run, against ceilings of the same run."""

    def __init__(self, device: torch.device, sizes: Sizes, rounds: int) -> None:
        self._device = device
        self._sizes = sizes
        self._clock = Clock(device, rounds)
        self._full_length_rates: dict[str, float] = {}
        self.ceilings = self._clock.ceilings(sizes.matrix_size)
        self.rows: list[Row] = []

    def run(self) -> None:
        """Measure, and print each row when it is known."""
        for contest in contests(self._device, self._sizes):
            self._contest(contest)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        self._note(self._adam())

    def _note(self, row: Row) -> None:
        print(row.markdown(), flush=True)
        self.rows.append(row)

    def _contest(self, contest: Contest) -> None:
        problem = contest.problem
        functions = {OURS: (problem.ours, problem.inputs), **problem.peers}
        if self._device.type == "cuda" and problem.operation in ("add_norm", "gelu"):
            peer, inputs = problem.peers["torch eager"]
            functions["torch.compile"] = torch.compile(peer), inputs
        if problem.includes_backward:
            calls = {name: _both_directions(*function) for name, function in functions.items()}
            self._measure(problem, "both", problem.forward_work, contest.forward, calls)
            return
        calls = {name: _forward(*function) for name, function in functions.items()}
        self._measure(problem, "forward", problem.forward_work, contest.forward, calls)
        calls = {}
        for name, function in functions.items():
            try:
                calls[name] = _backward(*function)
            except Exception as error:
                if name == OURS:
                    raise
                print(f"    {name} does not run here: {first_line(error)}", flush=True)
        if problem.operation == "add_norm":
            calls["F.layer_norm alone"] = _layer_norm_backward(problem.inputs)
        assert contest.backward is not None
        self._measure(problem, "backward", problem.backward_work, contest.backward, calls)

    def _measure(
        self, problem: Problem, direction: str, work: float, goal: Goal, calls: dict[str, Call]
    ) -> None:
        seconds = self._clock.medians(calls)
        bandwidth, operations = self.ceilings.copy_bytes_per_second, self.ceilings.operations_per_second
        ceiling = bandwidth if problem.is_bound_by_memory else operations
        rate = work / seconds[OURS]
        full = self._full_length_rates.setdefault(f"{problem.operation} {direction}", rate)
        demands = []
        if goal.share_of_ceiling is not None:
            demands.append(Demand("of ceiling", goal.share_of_ceiling, rate / ceiling))
        if goal.rate is not None:
            demands.append(Demand("TFLOP/s", goal.rate, rate / 1e12))
        if goal.share_of_full_length is not None:
            demands.append(Demand("of full length", goal.share_of_full_length, rate / full))
        if goal.workspace is not None:
            reached = _workspace(problem, calls[OURS]) if self._device.type == "cuda" else None
            demands.append(Demand("GiB", goal.workspace, reached, at_most=True))
        for name, ratio in goal.times_as_fast:
            best = _best(seconds, (name,))
            demands.append(Demand(name, ratio, None if best is None else best / seconds[OURS]))
        name = f"{problem.name}, {direction}"
        bound = problem.is_bound_by_memory
        self._note(Row(name, problem.operation, seconds, work, bound, rate / ceiling, demands))

    def _adam(self) -> Row:
        """bf16 weights, fp32 master and moments, gradient scale, in one pass: 28 bytes a parameter."""
        num_parameters = self._sizes.num_parameters
        weight = torch.nn.Parameter(torch.zeros(num_parameters, dtype=DTYPE, device=self._device))
        weight.grad = torch.ones_like(weight)
        scale = torch.ones((), device=self._device)
        ours = FusedAdamW([weight])
        precise = torch.nn.Parameter(weight.detach().float())
        precise.grad = torch.ones_like(precise)
        theirs = torch.optim.AdamW([precise], fused=True)
        calls: dict[str, Call] = {
            OURS: lambda: ours.step(grad_scale=scale),
            "torch AdamW": theirs.step,
            **_apex(precise),
        }
        seconds = self._clock.medians(calls)
        work = 28.0 * num_parameters
        share = work / seconds[OURS] / self.ceilings.copy_bytes_per_second
        ratio = seconds["torch AdamW"] / seconds[OURS]
        demands = [Demand("of ceiling", 0.88, share), Demand("torch AdamW", 1.0, ratio)]
        return Row(f"Adam, {num_parameters:,} weights, step", "adam", seconds, work, True, share, demands)


def ratios_to_torch(rows: list[Row]) -> dict[str, float]:
    """For each operation the worst ratio, over problems, of torch's best time to ours; both directions."""
    found: dict[str, float] = {}
    names = {row.name.rsplit(", ", 1)[0] for row in rows}
    for name in sorted(names):
        directions = [row for row in rows if row.name.rsplit(", ", 1)[0] == name]
        torchs = [_best(row.seconds, ("torch eager", "torch AdamW", "SDPA")) for row in directions]
        if None in torchs:
            continue
        ratio = sum(filter(None, torchs)) / sum(row.seconds[OURS] for row in directions)
        operation = directions[0].operation
        found[operation] = min(found.get(operation, ratio), ratio)
    return {operation: round(ratio, 3) for operation, ratio in found.items()}


def markdown(ceilings: Ceilings, rows: list[Row]) -> str:
    """The ceilings and the table."""
    return (
        f"Measured in the same run: copy {ceilings.copy_bytes_per_second / 1e12:.2f} TB/s, "
        f"bf16 matrix product {ceilings.operations_per_second / 1e12:,.0f} TFLOP/s.\n\n"
        + HEAD
        + "".join(row.markdown() + "\n" for row in rows)
    )


def described(rows: list[Row]) -> list[dict[str, Any]]:
    """For JSON."""
    return [{**asdict(row), "verdict": row.verdict} for row in rows]


def _workspace(problem: Problem, call: Call) -> float:
    """GiB that a call needs beside its results and an fp32 sum of the last input's gradient."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kept = call()
    peak = torch.cuda.max_memory_allocated() - before
    del kept
    results = sum(tensor.nbytes for tensor in problem.inputs)
    return (peak - results - 4 * problem.inputs[-1].numel()) / 2**30


def _best(seconds: dict[str, float], beginnings: tuple[str, ...]) -> float | None:
    return min((time for name, time in seconds.items() if name.startswith(beginnings)), default=None)


def _forward(function: Function, inputs: tuple[Tensor, ...]) -> Call:
    leaves = _leaves(inputs)  # as in training: what the backward pass needs is kept
    return lambda: function(*leaves)


def _backward(function: Function, inputs: tuple[Tensor, ...]) -> Call:
    leaves = _leaves(inputs)
    out = function(*leaves)
    grad = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, leaves, grad, retain_graph=True)


def _both_directions(function: Function, inputs: tuple[Tensor, ...]) -> Call:
    leaves = _leaves(inputs)
    return lambda: torch.autograd.grad(function(*leaves), leaves)


def _layer_norm_backward(inputs: tuple[Tensor, ...]) -> Call:
    x, _, _, gamma, beta = _leaves(inputs)
    out = F.layer_norm(x, gamma.shape, gamma, beta, EPSILON)
    grad = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, (x, gamma, beta), grad, retain_graph=True)


def _leaves(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.detach().clone().requires_grad_() for tensor in inputs)


def _apex(parameter: torch.nn.Parameter) -> dict[str, Call]:
    try:
        from apex.optimizers import FusedAdam
    except ImportError:
        return {}
    optimizer = FusedAdam([parameter], adam_w_mode=True)
    return {"apex FusedAdam": optimizer.step}


def use_kernels() -> None:
    """Demand every kernel, and keep the graphs of compiled functions for more than one backward pass."""
    os.environ[choice.VARIABLE] = "kernel"
    choice.choose_kernels("cuda")
    torch._functorch.config.donated_buffer = False


if __name__ == "__main__":
    use_kernels()
    measurement = Measurement(torch.device("cuda"), FULL, ROUNDS)
    measurement.run()
    print("\n" + markdown(measurement.ceilings, measurement.rows))
