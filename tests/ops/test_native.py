"""The C kernels: how they are built, when they are used, and that threads change no bit."""

import logging
import os
import subprocess
import sys

import pytest
import torch

from deltalm_ds import ops
from deltalm_ds.ops import Dropout, linear_cross_entropy
from deltalm_ds.ops.native import kernels
from deltalm_ds.ops.native import library as library_module
from deltalm_ds.ops.native.library import library

needs_compiler = pytest.mark.skipif(library() is None, reason="no C compiler here")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache folder; what was loaded before is forgotten for the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library.cache_clear()
    yield tmp_path / "deltalm-ds"
    monkeypatch.undo()
    library.cache_clear()


@needs_compiler
def test_built_once_and_then_loaded(fresh, monkeypatch):
    assert library() is not None
    (built,) = fresh.iterdir()
    library.cache_clear()
    monkeypatch.setattr(library_module, "_compile", lambda *arguments: pytest.fail("compiled again"))
    assert library() is not None
    assert list(fresh.iterdir()) == [built]


@needs_compiler
def test_other_sources_or_flags_make_another_library(monkeypatch, tmp_path):
    first = library_module._fingerprint("cc")
    monkeypatch.setattr(library_module, "FLAGS", ("-O1",))
    second = library_module._fingerprint("cc")
    (tmp_path / "other.c").write_text("int other;")
    monkeypatch.setattr(library_module, "FOLDER", tmp_path)
    assert len({first, second, library_module._fingerprint("cc")}) == 3


@pytest.mark.usefixtures("fresh")
def test_without_a_compiler_torch_takes_over(monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    with caplog.at_level(logging.WARNING):
        assert library() is None
        assert library() is None
    assert len(caplog.records) == 1
    assert not kernels.support(torch.zeros(1))
    x = torch.ones(2, 8)
    assert torch.equal(ops.dropout_add(x, torch.zeros(8), x, None), 2 * x)


def test_a_failing_compiler_leaves_nothing_behind(fresh, monkeypatch, caplog, tmp_path):
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\n[ $1 = --version ] && exit 0\necho broken >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with caplog.at_level(logging.WARNING):
        assert library() is None
    assert "broken" in caplog.text
    assert not list(fresh.iterdir())


def test_without_a_home_folder_torch_takes_over(fresh, monkeypatch, caplog):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(library_module.Path, "home", no_home)
    with caplog.at_level(logging.WARNING):
        assert library() is None
    assert len(caplog.records) == 1
    assert not fresh.exists()


def no_home():
    raise RuntimeError("Could not determine home directory.")


@needs_compiler
def test_without_sources_torch_takes_over(fresh, monkeypatch, caplog, tmp_path):
    (tmp_path / "installed").mkdir()
    monkeypatch.setattr(library_module, "FOLDER", tmp_path / "installed")
    with caplog.at_level(logging.WARNING):
        assert library() is None
    (record,) = caplog.records
    assert "install the package again" in record.getMessage()
    assert not fresh.exists()


BUILD = """
import importlib.util, pathlib, sys
specification = importlib.util.spec_from_file_location("library", sys.argv[1])
module = importlib.util.module_from_spec(specification)
specification.loader.exec_module(module)
module.FOLDER = pathlib.Path(sys.argv[2])
assert module.library() is not None
"""


@needs_compiler
def test_processes_may_build_at_the_same_time(tmp_path):
    (tmp_path / "one.c").write_text("int one(void) { return 1; }")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", BUILD, library_module.__file__, str(tmp_path)]
    processes = [subprocess.Popen(command, env=environment) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]
    assert len(list((tmp_path / "deltalm-ds").iterdir())) == 1


@needs_compiler
def test_which_tensors_are_taken():
    single, half = torch.zeros(1), torch.zeros(1, dtype=torch.bfloat16)
    assert kernels.support(single, None, single)
    assert kernels.support(half)
    assert not kernels.support(single, half)
    assert not kernels.support(single.double())
    assert not kernels.support(single.to("meta"))


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_no_bit(dtype):
    torch.manual_seed(0)
    tokens, features = 300, 48
    x, residual = torch.randn(2, tokens, features).to(dtype)
    bias, gamma, beta = torch.randn(3, features).to(dtype)
    dropout = Dropout(0.3, 1, 2, 3, 4, torch.arange(tokens), torch.arange(tokens))
    target = torch.randint(features, (tokens,))

    def results():
        inputs = [tensor.clone().requires_grad_() for tensor in (x, bias, residual, gamma, beta)]
        out = ops.dropout_add_layer_norm(*inputs, dropout, 1e-5)
        out = ops.apply_dropout(ops.bias_gelu(out, inputs[1]), dropout)
        loss = linear_cross_entropy(out, torch.eye(features, dtype=dtype), target, 0.1).loss
        return [loss, *torch.autograd.grad(loss, inputs)]

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = results()
        torch.set_num_threads(3)
        three = results()
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(first, second) for first, second in zip(one, three, strict=True))
