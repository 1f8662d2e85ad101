"""Right to the last digit: each kernel against fp64, its error against that of torch's own operation.

`python benchmarks/kernel_checks.py` runs all of it on a GPU and ends with 1 if anything is wrong; --small is
for compute-sanitizer, which slows kernels down a hundredfold. deepspeed is not needed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from attention_problems import attention
from problems import Problem, add_norm, gelu, gelu_linear, linear_cross_entropy, made_dropout
from torch import Tensor

from deltalm_ds.ops import FusedAdamW
from deltalm_ds.ops.cuda import choice
from deltalm_ds.ops.dropout import keep_mask

ALLOWED = 2.0
"""Times the error of torch's operation in the same dtype."""
_FLOOR = {torch.bfloat16: 2.0**-9, torch.float16: 2.0**-12}
"""Of the norm: one rounding of the result, which nobody can do without."""


@dataclass(frozen=True)
class Finding:
    """One comparison."""

    name: str
    error: float
    """Of our result, relative to the norm of the true one."""
    allowed: float

    @property
    def is_right(self) -> bool:
        """False for NaN too."""
        return self.error <= self.allowed

    def __str__(self) -> str:
        return f"{'ok  ' if self.is_right else 'WRONG'} {self.name}: {self.error:.2e} of {self.allowed:.2e}"


def problems(device: torch.device, dtype: torch.dtype, small: bool) -> Iterator[Problem]:
    """All operations at sizes that divide by nothing, empty sequences among them."""
    yield attention(device, dtype, "attention, ragged", [5, 0, 130, 1, 64], [7, 3, 65, 1, 0], num_heads=2)
    yield attention(device, dtype, "attention, causal", [64, 0, 150, 1], [64, 0, 150, 1], 2, causal=True)
    yield add_norm(device, dtype, 37, 136)
    yield add_norm(device, dtype, 21, 1024, with_dropout=False)
    yield gelu(device, dtype, 53, 1032)
    yield gelu_linear(device, dtype, 53, 264, 72)
    yield linear_cross_entropy(device, dtype, 19, 64, 1208)
    if not small:
        generator = torch.Generator().manual_seed(1)
        lengths = [torch.randint(0, 513, (24,), generator=generator).tolist() for _ in range(2)]
        yield attention(device, dtype, "attention, 24 random pairs", *lengths, num_heads=12)
        yield attention(device, dtype, "attention, causal, random", lengths[0], lengths[0], 12, causal=True)
        yield attention(device, dtype, "attention, 8 of 512", [512] * 8, [512] * 8, num_heads=12)
        yield add_norm(device, dtype, 4099, 768)
        yield gelu(device, dtype, 4099, 3072)
        yield linear_cross_entropy(device, dtype, 300, 768, 250_104)
        yield linear_cross_entropy(device, dtype, 4200, 64, 250_104)  # more than one chunk


def compare(problem: Problem) -> Iterator[Finding]:
    """Result and gradients; also that a second run gives the same bits."""
    dtype = problem.inputs[0].dtype
    ours, again = _run(problem.ours, problem.inputs), _run(problem.ours, problem.inputs)
    peers = _run(problem.eager, problem.inputs)
    truth = _run(problem.eager, tuple(tensor.double() for tensor in problem.inputs))
    for number, (mine, twice, peer, true) in enumerate(zip(ours, again, peers, truth, strict=True)):
        part = f"gradient {number}" if number else "result"
        name = f"{problem.name}, {str(dtype)[6:]}, {part}"
        norm = float(true.norm()) or 1.0
        allowed = max(ALLOWED * float((peer - true).norm()) / norm, _FLOOR[dtype])
        yield Finding(name, float((mine - true).norm()) / norm, allowed)
        if not torch.equal(mine, twice):
            yield Finding(f"{name}: another run has other bits", float("inf"), 0.0)


def dropout_bits(device: torch.device) -> Finding:
    """The kernel's decisions are those of the reference, bit by bit."""
    dropout = made_dropout(501, device)
    x = torch.ones(501, 776, device=device)
    arguments = dropout.probability, dropout.seed, dropout.step, dropout.layer, dropout.site
    counters = dropout.sample_of_token, dropout.index_of_token
    total = torch.ops.deltalm.add_norm(
        x, x.new_zeros(776), torch.zeros_like(x), None, None, 0.0, *arguments, *counters
    )[0]
    differing = float(((total != 0) != keep_mask(dropout, 776)).sum())
    return Finding("dropout decisions", differing, 0.0)


def adam(device: torch.device, sizes: tuple[int, ...]) -> Iterator[Finding]:
    """Ten steps of bf16 weights against torch's AdamW in fp64 on the same gradients."""
    generator = torch.Generator(device).manual_seed(3)

    def noise(size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=device)

    ours = [torch.nn.Parameter(noise(size).bfloat16()) for size in sizes]
    true = [torch.nn.Parameter(parameter.detach().double()) for parameter in ours]
    settings = {"lr": 1e-2, "betas": (0.9, 0.98), "weight_decay": 0.1}
    optimizer, reference = FusedAdamW(ours, **settings), torch.optim.AdamW(true, **settings)
    for _ in range(10):
        for mine, other in zip(ours, true, strict=True):
            mine.grad = noise(mine.numel()).bfloat16()
            other.grad = 0.5 * mine.grad.double()
        optimizer.step(grad_scale=torch.tensor(0.5, device=device))
        reference.step()
    for mine, other in zip(ours, true, strict=True):
        master = optimizer.state[mine]["master"]
        error = float((master - other.detach()).norm() / other.detach().norm())
        yield Finding(f"Adam, {mine.numel():,} weights", error, 1e-6)
        yield Finding("Adam's rounded weights", float((mine != master.bfloat16()).sum()), 0.0)


def far_offsets(device: torch.device) -> Finding:
    """Tokens past 2^31 numbers from the start: 13 GB."""
    width, num_tokens = 1024, 2**21 + 5
    x = torch.zeros(num_tokens, width, dtype=torch.bfloat16, device=device)
    x[-3:] = torch.randn(3, width, device=device)
    ones, zeros = x.new_ones(width), x.new_zeros(width)
    arguments = (ones, zeros, 1e-5, 0.0, 0, 0, 0, 0, None, None)
    far = torch.ops.deltalm.add_norm(x, zeros, x, *arguments)[0][-3:]
    near = torch.ops.deltalm.add_norm(x[-3:].clone(), zeros, x[-3:].clone(), *arguments)[0]
    return Finding("offsets past 2^31", float((far != near).sum()), 0.0)


def check(device: torch.device, small: bool, say: Callable[[str], None] = print) -> list[Finding]:
    """Everything."""
    torch.manual_seed(0)
    found: list[Finding] = []

    def note(finding: Finding) -> None:
        say(str(finding))
        found.append(finding)

    for dtype in (torch.bfloat16, torch.float16):
        for problem in problems(device, dtype, small):
            for finding in compare(problem):
                note(finding)
    note(dropout_bits(device))
    for finding in adam(device, (1, 1000, 16_391) if small else (7, 250_104 * 64)):
        note(finding)
    if not small:
        note(far_offsets(device))
    return found


def _run(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The result and the gradients of all inputs, fp64."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    out = function(*leaves)
    seed = torch.Generator(out.device).manual_seed(9)
    grad = torch.randn(out.shape, generator=seed, device=out.device).to(inputs[0].dtype)
    if not out.dim():
        grad = torch.ones_like(out)
    gradients = torch.autograd.grad(out, leaves, grad.to(out.dtype), materialize_grads=True)
    return [tensor.detach().double() for tensor in (out, *gradients)]


def main() -> None:
    """Print every comparison; exit with 1 if one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="small inputs alone, as under compute-sanitizer")
    settings = parser.parse_args()
    os.environ[choice.VARIABLE] = "kernel"
    choice.choose_kernels("cuda")
    found = check(torch.device("cuda"), settings.small)
    wrong = [finding for finding in found if not finding.is_right]
    print(f"{len(found) - len(wrong)} of {len(found)} comparisons are right")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
