"""Mistakes of users: one line that says what to do, exit code 2, and nothing written."""

import contextlib
import ctypes
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist
from distributed import REPOSITORY, free_port, run_distributed

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.model import DeltaLM, DeltaLMConfig

CLONE_NEWNS = 0x00020000

SMALL = {
    "steps": 1,
    "batch-size": 2,
    "max-source-length": 32,
    "num-loader-workers": 0,
    "validation-samples": 1,
    "text-samples": 0,
}


def mount_small_disk(folder):
    """A real file system of 1 MiB at `folder`, seen by this process alone. Only root may."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    folder.mkdir(parents=True)
    for command in ("--make-rprivate /", f"-t tmpfs -o size=1m tmpfs {folder}"):
        subprocess.run(["mount", *command.split()], check=True)


def run_all(cases):
    """Exit code, stderr and what is in checkpoints/ after the command with each case's arguments.

    The cases run one after another in one process; None for one that this machine does not allow.
    """
    from deltalm_ds import commands
    from deltalm_ds import pretrain as command

    # DeepSpeed cannot join a second group in one process, so good runs leave theirs for the next.
    dist.destroy_process_group = lambda: None
    results = []
    for arguments in cases:
        output = Path(arguments[arguments.index("--output") + 1])
        if "--full-disk" in arguments:
            arguments.remove("--full-disk")
            try:
                mount_small_disk(output)
            except (OSError, subprocess.CalledProcessError):
                results.append(None)
                continue
        sys.argv[1:] = arguments
        said = io.StringIO()
        code = None
        with contextlib.redirect_stderr(said):
            try:
                commands.run("pretrain", command.main)
            except SystemExit as stop:
                code = stop.code
        left = sorted(path.name for path in (output / "checkpoints").glob("*"))
        results.append([code, said.getvalue(), left])
    return results


def truncated(file):
    os.truncate(file, file.stat().st_size - 8)


def flipped(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    file.write_bytes(content)


def edited_tokenizer(file):
    file.write_bytes(file.read_bytes() + b"\0")


DAMAGE = {
    "missing .bin": ("train/de.bin", Path.unlink, "de.bin is missing"),
    "missing .idx": ("train/de.idx", Path.unlink, "de.idx is missing"),
    "truncated .bin": ("train/de.bin", truncated, "truncated"),
    "truncated .idx": ("train/de.idx", truncated, "truncated"),
    "flipped .bin": ("train/de.bin", flipped, "damaged"),
    "flipped .idx": ("train/de.idx", flipped, "damaged"),
    "another tokenizer": ("tokenizer.model", edited_tokenizer, "not the tokenizer"),
}

JSON = {
    "not JSON": ("{'bf16': 1}", "line 1, column 2"),
    "misspelt key": ('{"gradient_acumulation_steps": 2}', "did you mean"),
    "misspelt section key": ('{"zero_optimization": {"stag": 2}}', "stag"),
}

OPTIONS = {
    "unknown option": ({"learnin-rate": 1}, "--learning-rate"),
    "unknown preset": ({"preset": "huge"}, "tiny"),
    "missing data": ({"data": "nowhere"}, "nowhere"),
    "missing weights": ({"from": "nowhere.pt"}, "nowhere.pt"),
    "more spans than sentinels": (
        {"max-source-length": 512, "translation-density": 0.7, "corruption-form": "t5"},
        "sentinels",
    ),
    "longer than the model": ({"max-target-length": 1024}, "--max-target-length"),
    "resume without a run": ({"resume": None}, "no checkpoint to resume from"),
}


def arguments_of(options):
    return [
        part
        for name, value in options.items()
        for part in ([f"--{name}"] if value is None else [f"--{name}", str(value)])
    ]


@pytest.fixture(scope="module")
def results(tmp_path_factory, small_corpus):
    """Every mistake's exit code, stderr, checkpoints and output folder, by name."""
    folder = tmp_path_factory.mktemp("mistakes")
    deepspeed_config = folder / "deepspeed.json"
    deepspeed_config.write_text("{}")
    cases = {}

    def case(name, **options):
        output = folder / name.replace(" ", "-") / "run"
        given = {
            "data": small_corpus,
            "deepspeed_config": deepspeed_config,
            "output": output,
            **SMALL,
            **{option.replace("_", "-"): value for option, value in options.items()},
        }
        given["deepspeed_config"] = given.pop("deepspeed-config", given["deepspeed_config"])
        cases[name] = given

    for name, (file, damage, _) in DAMAGE.items():
        damaged = folder / name.replace(" ", "-") / "data"
        shutil.copytree(small_corpus, damaged)
        damage(damaged / file)
        case(name, data=damaged)
    for name, (content, _) in JSON.items():
        path = folder / f"{name.replace(' ', '-')}.json"
        path.write_text(content)
        case(name, deepspeed_config=path)
    for name, (options, _) in OPTIONS.items():
        case(name, **options)
    case("full disk", full_disk=None)
    weights = folder / "weights"
    vocabulary = Corpus.open(small_corpus).vocabulary
    config = DeltaLMConfig(
        vocabulary_rows=vocabulary.num_rows,
        mask_id=vocabulary.mask_id,
        first_sentinel_id=vocabulary.first_sentinel_id,
        num_sentinels=vocabulary.num_sentinels,
        width=32,
        feed_forward_width=48,
        num_heads=2,
        num_encoder_layers=3,
        num_decoder_blocks=1,
    )
    DeltaLM(config).save_pretrained(weights)
    DeltaLM(dataclasses.replace(config, vocabulary_rows=vocabulary.num_rows + 8)).save_pretrained(
        folder / "more rows"
    )
    case("starting weights", **{"from": weights})
    case("resumed from starting weights", output=cases["starting weights"]["output"], steps=2, resume=None)
    case("a file in place of the output", output=deepspeed_config / "run")
    case("weights of another vocabulary", **{"from": folder / "more rows"})
    # A good run, one that would overwrite it, and one that resumes it as another model.
    case("good")
    case("again", output=cases["good"]["output"])
    case("another model", output=cases["good"]["output"], preset="small", resume=None)
    case("other data settings", output=cases["good"]["output"], max_source_length=48, resume=None)
    case("another mixture", output=cases["good"]["output"], monolingual_share=0.3, resume=None)
    (outcome,) = run_distributed(
        run_all, 1, timeout=200, cases=[arguments_of(options) for options in cases.values()]
    )
    return {
        name: found and (*found, Path(options["output"]))
        for (name, options), found in zip(cases.items(), outcome.value, strict=True)
    }


EXPECTED = {
    **{name: words for name, (_, _, words) in DAMAGE.items()},
    **{name: words for name, (_, words) in JSON.items()},
    **{name: words for name, (_, words) in OPTIONS.items()},
    "weights of another vocabulary": "vocabulary_rows",
    "full disk": "no space",
    "a file in place of the output": "Not a directory",
    "again": "--resume",
    "another model": "width",
    "other data settings": "objectives",
    "another mixture": "mixture.",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_mistake_is_one_line_and_exit_code_2(results, name):
    if results[name] is None:
        pytest.skip("needs the right to mount a small file system")
    code, said, left, _ = results[name]
    errors = [line for line in said.splitlines() if line.startswith("deltalm-ds pretrain: error: ")]
    assert code == 2, said
    assert len(errors) == 1, said
    assert said.splitlines()[-1] == errors[0]
    assert EXPECTED[name] in errors[0]
    on_the_good_run = ("again", "another model", "other data settings", "another mixture")
    began = ["lease"] if name == "full disk" else []
    assert left == (["latest", "lease", "step_1"] if name in on_the_good_run else began)


def test_the_run_that_mistakes_were_made_on_is_whole(results):
    code, said, _, output = results["good"]
    assert code == 0, said
    assert (output / "checkpoints" / "latest").read_text() == "step_1\n"
    run = json.loads((output / "checkpoints" / "step_1" / "run.json").read_text())
    assert run["step"] == 1
    model = DeltaLM.from_pretrained(output / "model")
    assert model.config.to_dict() == json.loads((output / "config.json").read_text())


def test_a_run_starts_from_weights_and_says_so_and_goes_on(results):
    code, said, _, output = results["starting weights"]
    assert code == 0, said
    assert "encoder" in said
    code, said, left, _ = results["resumed from starting weights"]
    assert code == 0, said
    assert "settings changed since step_1: steps is 1 there, 2 here" in said
    assert left == ["latest", "lease", "step_1", "step_2"]
    config = json.loads((output / "config.json").read_text())
    assert (config["width"], config["num_encoder_layers"]) == (32, 3)


def test_the_module_form_says_help_and_refuses_unknown_options():
    command = [sys.executable, "-m", "deltalm_ds.pretrain"]
    helped = subprocess.run([*command, "--help"], cwd=REPOSITORY, capture_output=True, text=True)
    assert helped.returncode == 0
    assert "--deepspeed-config" in helped.stdout
    refused = subprocess.run([*command, "--presett", "tiny"], cwd=REPOSITORY, capture_output=True, text=True)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert "--preset" in refused.stderr


def test_many_processes_say_one_mistake_once():
    torchrun = Path(sys.executable).parent / "torchrun"
    command = [torchrun, "--nproc-per-node", "2", "--master-port", str(free_port()), "deltalm_ds/pretrain.py"]
    done = subprocess.run([*command, "--presett", "tiny"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("deltalm-ds pretrain: error: ")]
    assert len(said) == 1
    assert "--preset" in said[0]
