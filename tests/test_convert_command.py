"""The command `convert`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from export_samples import PARITY, tokenizer_file

from deltalm_ds.exporting.model import read_model
from deltalm_ds.weights import read_description

REPOSITORY = Path(__file__).parent.parent


def convert(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deltalm_ds.convert", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_a_chain_of_layouts(tmp_path: Path) -> None:
    tokenizer = tokenizer_file(tmp_path, 24)
    released = PARITY / "released.pt"
    for source, name, *options in (
        (released, "native", "--heads", 4, "--tokenizer", tokenizer),
        (tmp_path / "native", "fairseq", "--average", tmp_path / "native"),
        (tmp_path / "fairseq", "huggingface", "--tokenizer", tokenizer, "--dtype", "bf16"),
        (tmp_path / "huggingface", "released"),
    ):
        done = convert(source, tmp_path / name, "--to", name, *options)
        assert done.returncode == 0, done.stderr
        assert f"written: {tmp_path / name} ({name})" in done.stdout
    assert read_description(tmp_path / "native").vocabulary.num_pieces == 24
    expected = read_model(released, heads=4).weights
    found = read_model(tmp_path / "released", heads=4).weights
    for name, tensor in expected.items():
        assert found[name].equal(tensor.bfloat16().float())
    assert json.loads((tmp_path / "huggingface" / "config.json").read_text())["encoder_attention_heads"] == 4


def test_the_error_is_printed_for_ctranslate2(tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    tokenizer = tokenizer_file(tmp_path, 24)
    done = convert(
        PARITY / "released.pt",
        tmp_path / "ct2",
        "--to",
        "ctranslate2",
        "--heads",
        4,
        "--tokenizer",
        tokenizer,
    )
    assert done.returncode == 0, done.stderr
    assert "against our own model: log-probabilities of" in done.stdout
    assert "greedy outputs identical: 64 of 64" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--to", "native"), "the source has no tokenizer, which this target needs; give --tokenizer FILE"),
        (("--to", "huggingface"), "give --tokenizer FILE"),
        (("--to", "released", "--quantization", "int8"), "--quantization goes with --to ctranslate2 only"),
        (("--to", "ctranslate2", "--dtype", "fp16"), "give --quantization"),
        (("--to", "released", "--heads", "0"), "--heads must be at least 1"),
        (("--to", "released", "--heads", "5"), "not a multiple of 5 heads"),
    ],
)
def test_mistakes(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = convert(PARITY / "released.pt", tmp_path / "new", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    done = convert(PARITY / "released.pt", tmp_path / "mine", "--to", "fairseq")
    assert done.returncode == 2
    assert "exists already; remove it or name another target" in done.stderr
    assert (tmp_path / "mine").read_text() == "mine"
