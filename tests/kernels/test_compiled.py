"""The kernels compiled for every GPU: what they use of it, and what their machine code holds.

`python tests/kernels/test_compiled.py` writes the table of registers anew after a kernel changed on purpose.
"""

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from on_cpu import KernelsOnCPU

from deltalm_ds.ops.cuda.build import ARCHITECTURES, cached_build, find_nvcc
from deltalm_ds.ops.cuda.kernels import AdamTensors, AdamUpdate

TABLE = Path(__file__).resolve().parents[2] / "kernels/RESOURCES.md"
HEAD = f"""\
# What the kernels use of a GPU

Registers a thread, of 255. No kernel has a stack frame or spills.
`make test` compares, and `python tests/kernels/test_compiled.py` writes this table anew.

| kernel | {" | ".join(f"sm_{name}" for name in ARCHITECTURES)} |
|---|{"---|" * len(ARCHITECTURES)}
"""
SPARE_REGISTERS = 8  # other releases of nvcc

_ENTRY = re.compile(
    r"Compiling entry function '(\w+)' for 'sm_(\w+)'.*?"
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers",
    re.DOTALL,
)

needs_nvcc = pytest.mark.skipif(find_nvcc() is None, reason="needs nvcc")


def demangled(names):
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return [
        re.sub(r"^void |\(.*\)$", "", line.replace("(bool)1", "true").replace("(bool)0", "false"))
        for line in done.stdout.splitlines()
    ]


def usage_of(report):
    """{kernel: {architecture: (registers, bytes of stack and spills)}} from ptxas's report."""
    entries = _ENTRY.findall(report)
    usage = defaultdict(dict)
    names = demangled([entry[0] for entry in entries])
    for name, (_, architecture, *numbers) in zip(names, entries, strict=True):
        stack, stores, loads, registers = map(int, numbers)
        usage[name][architecture] = registers, stack + stores + loads
    return usage


def table_of(usage):
    rows = [
        "".join([f"| `{name}` |", *(f" {usage[name][one][0]} |" for one in ARCHITECTURES), "\n"])
        for name in sorted(usage)
    ]
    return HEAD + "".join(rows)


def recorded():
    registers, _, _ = TABLE.read_text().partition("## Shared memory")
    rows = re.findall(r"^\| `(.+?)` \| (.+) \|$", registers, flags=re.MULTILINE)
    return {name: [int(number) for number in numbers.split(" | ")] for name, numbers in rows}


@pytest.fixture(scope="session")
def compiled_on_cpu(library):
    return KernelsOnCPU(library)


@pytest.fixture(scope="module")
def compiled():
    """The library and ptxas's report."""
    return cached_build(find_nvcc())


@needs_nvcc
def test_registers_and_spills_are_as_recorded(compiled):
    usage, table = usage_of(compiled[1]), recorded()
    assert usage.keys() == table.keys()
    for name, of_architecture in usage.items():
        assert set(of_architecture) == set(ARCHITECTURES), name
        for architecture, allowed in zip(ARCHITECTURES, table[name], strict=True):
            registers, in_local_memory = of_architecture[architecture]
            assert in_local_memory == 0, (name, architecture)
            assert registers <= allowed + SPARE_REGISTERS, (name, architecture)


def tool(name):
    """From PyPI beside this Python, or of a CUDA toolkit."""
    found = sorted(Path(sys.prefix).glob(f"lib/python*/site-packages/nvidia/*/bin/{name}"))
    return str(found[0]) if found else shutil.which(name)


def machine_code(library, architecture):
    """{kernel: its instructions}."""
    path = f"{Path(tool('nvdisasm')).parent}:/usr/bin:/bin"
    command = [tool("cuobjdump"), "-sass", "-arch", f"sm_{architecture}", str(library)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": path}).stdout
    parts = re.split(r"^\s*Function : (\w+)$", text, flags=re.MULTILINE)[1:]
    names = demangled(parts[::2])
    return {
        name: re.findall(r"^\s*/\*\w+\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)", body, flags=re.MULTILINE)
        for name, body in zip(names, parts[1::2], strict=True)
    }


@needs_nvcc
@pytest.mark.skipif(not (tool("cuobjdump") and tool("nvdisasm")), reason="needs cuobjdump and nvdisasm")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_machine_code(compiled, architecture):
    """Matrix units in attention, 16-byte global accesses in all but the sums, no local memory anywhere."""
    kernels = machine_code(compiled[0], architecture)
    assert len(kernels) == len(recorded())
    for name, instructions in kernels.items():
        assert len(instructions) > 20, name
        assert not [one for one in instructions if one.startswith(("LDL", "STL"))], name
        if name.startswith(("attention<", "attention_backward<")):
            assert any(one.startswith("HMMA.16816") for one in instructions), name
            assert any(one.startswith("LDGSTS") and ".128" in one for one in instructions), name
        elif not name.startswith("add_parts<"):
            loads = [one for one in instructions if one.startswith(("LDG.E", "LD.E"))]
            assert any(".128" in one for one in loads), name


def test_shared_memory_is_as_recorded(compiled_on_cpu):
    """Given at the launch, so it is counted there; the table is of LayerNorms 768 wide."""
    x, vector = torch.zeros(32, 768).bfloat16(), torch.zeros(768).bfloat16()
    heads, lengths = torch.zeros(8, 1, 64).bfloat16(), torch.tensor([0, 8], dtype=torch.int32)
    of_attention = (lengths, lengths, 8, 8, False)
    labels = torch.zeros(32, dtype=torch.int64)
    found = {}

    def note(name, *arguments):
        compiled_on_cpu.most_shared_bytes()
        results = getattr(compiled_on_cpu, name)(*arguments)
        found[name] = compiled_on_cpu.most_shared_bytes()
        return results

    out, log_sums = note("attention", heads, heads, heads, *of_attention)
    note("attention_backward", out, heads, heads, heads, out, log_sums, *of_attention)
    _, *kept = note("add_norm", x, vector, x, vector, vector, 1e-5, None)
    note("add_norm_backward", x, *kept, vector, None)
    note("gelu", x, vector)
    note("gelu_backward", x, x, vector, torch.empty_like(x))
    note("cross_entropy", x.clone(), labels, 1.0, 0.0, True)
    weight = torch.zeros(8)
    note("adam", [AdamTensors(*(weight,) * 4, None)], AdamUpdate(0.9, 0.9, 1.0, 1.0, 1.0, 1.0), None)
    _, _, table = TABLE.read_text().partition("## Shared memory")
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \|$", table, flags=re.MULTILINE)
    assert found == {name: int(number.replace(",", "")) for name, number in rows}


@needs_nvcc
def test_the_library_answers_where_there_is_no_gpu(compiled):
    """Loaded by ctypes: an error code, and no crash, on a machine without a driver."""
    code = (
        "import ctypes, sys\n"
        "library = ctypes.CDLL(sys.argv[1])\n"
        "long, none = ctypes.c_int64, ctypes.c_void_p(0)\n"
        "print(library.deltalm_gelu(none, none, none, long(4), long(8), long(1), none))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(compiled[0])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) != 0


if __name__ == "__main__":
    _, head, shared_memory = TABLE.read_text().partition("\n## Shared memory")
    TABLE.write_text(table_of(usage_of(cached_build(find_nvcc())[1])) + head + shared_memory)
