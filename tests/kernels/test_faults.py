"""A test of the tests: kernels with a planted fault must fail them."""

import subprocess
import sys
from pathlib import Path

import pytest
from on_cpu import compile_kernels

FOLDER = Path(__file__).parent

FAULTS = {
    "a missing barrier": (
        (
            "attention_forward.cu",
            "        __syncthreads();\n        if (start == 0)",
            "        if (start == 0)",
        ),
        "test_attention.check(kernels, [64], [64], False, torch.bfloat16, 1)",
    ),
    "a missing barrier before shared memory is used again": (
        (
            "add_norm.cu",
            "        __syncthreads();\n#pragma unroll\n        for (int v = 0",
            "#pragma unroll\n        for (int v = 0",
        ),
        "test_add_norm.check(kernels, 37, 768, torch.float32, 0.1, True)",
    ),
    "a wrong mask edge": (
        ("attention_forward.cu", "column > row + row_of(i)", "column > row + 1 + row_of(i)"),
        "test_attention.check(kernels, [64, 0, 150, 1], [64, 0, 150, 1], True, torch.bfloat16, 1)",
    ),
    "a key too many": (
        ("attention_forward.cu", "column >= key.length", "column > key.length"),
        "test_attention.check(kernels, [29], [77], False, torch.bfloat16, 1)",
    ),
    "copies not waited for": (
        ("attention_forward.cu", "wait_for_groups<1>", "wait_for_groups<2>"),
        "test_attention.check(kernels, [64], [200], False, torch.bfloat16, 1)",
    ),
    "copies not waited for, backward": (
        ("attention_backward.cu", "wait_for_groups<1>", "wait_for_groups<2>"),
        "test_attention.check(kernels, [64], [200], False, torch.bfloat16, 1)",
    ),
    "a 32-bit offset in GELU": (
        (
            "gelu.cu",
            "const int64_t place = token * p.width + feature",
            "const int place = (int)(token * p.width + feature)",
        ),
        "test_gelu.test_offsets_past_2_to_the_31(kernels)",
    ),
    "a 32-bit offset in the loss": (
        ("cross_entropy.cu", "p.logits + token * p.num_classes", "p.logits + (int)(token * p.num_classes)"),
        "test_cross_entropy.test_offsets_past_2_to_the_31(kernels)",
    ),
    "a 32-bit offset in Adam": (
        ("adam.cu", "int64_t first = chunk.start", "int first = (int)chunk.start"),
        "test_adam.test_offsets_past_2_to_the_31(kernels)",
    ),
    "a 32-bit offset": (
        ("add_norm.cu", "const int64_t row = token * p.width;", "const int row = (int)(token * p.width);"),
        "test_add_norm.test_offsets_past_2_to_the_31(kernels)",
    ),
}


def fails(library, check, order):
    """Whether the check fails, in a process of its own, for a fault may be a crash."""
    lines = (
        "import sys, torch, pathlib",
        f"sys.path[:0] = [{str(FOLDER)!r}]",
        "import test_adam, test_add_norm, test_attention, test_cross_entropy, test_gelu",
        "from on_cpu import KernelsOnCPU",
        f"kernels = KernelsOnCPU(pathlib.Path({str(library)!r}))",
        f"kernels.shuffle_threads({order})",
        check,
    )
    return subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True).returncode != 0


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_in_one_order_of_threads_at_least(tmp_path, name):
    (file, text, fault), check = FAULTS[name]
    library = compile_kernels(tmp_path, {file: (text, fault)})
    assert any(fails(library, check, order) for order in (0, 7))


def test_without_a_fault_the_same_checks_pass(library):
    everything = "\n".join(check for _, check in FAULTS.values())
    assert not any(fails(library, everything, order) for order in (0, 7))
