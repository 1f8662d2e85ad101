"""The commands that README.md and docs/ show exist, and the README's run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COPIED = ("deltalm_ds", "ds_configs")
LAUNCHED = "deltalm_ds/finetune.py"

_BLOCK = re.compile(r"(<!-- not run: ([^>]+) -->\n)?```bash\n(.*?)```", re.DOTALL)
_COMMAND = re.compile(r"python -m deltalm_ds\.(\w+)|deltalm_ds/(\w+)\.py")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z_-]*")


@dataclass(frozen=True)
class Block:
    """A fenced bash block."""

    commands: str
    not_run: str | None
    """Why it is not run, as the comment on the line before says."""


def blocks_of(page: Path) -> list[Block]:
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(commands, reason or None) for _, reason, commands in found]


@lru_cache
def options_of(command: str) -> set[str]:
    """What `python -m deltalm_ds.COMMAND --help` lists, with hyphens, wide enough to break no line."""
    done = subprocess.run(
        [sys.executable, "-m", f"deltalm_ds.{command}", "--help"],
        env={**os.environ, "COLUMNS": "250"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {option.replace("_", "-") for option in _OPTION.findall(done.stdout)}


def shown_commands() -> list[tuple[str, str]]:
    """(command, line) of every line in a bash block that runs one of our commands."""
    lines = [line for page in PAGES for block in blocks_of(page) for line in block.commands.splitlines()]
    return [(match[1] or match[2], line[match.end() :]) for line in lines if (match := _COMMAND.search(line))]


def test_options_in_commands_exist() -> None:
    shown = shown_commands()
    assert {"prepare", "corpus", "pretrain"} <= {command for command, _ in shown}
    for command, arguments in shown:
        options = {option.replace("_", "-") for option in _OPTION.findall(arguments)}
        assert options <= options_of(command), (command, options - options_of(command))


def test_options_in_prose_exist() -> None:
    """`--option` between backquotes: of one of our commands, or of a launcher or SLURM."""
    ours = set().union(*(options_of(command) for command, _ in shown_commands()))
    launchers = {"--num-gpus", "--hostfile", "--nproc-per-node", "--ntasks-per-node", "--signal"}
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        shown = {
            option.replace("_", "-")
            for code in re.findall("`[^`]+`", text)
            for option in _OPTION.findall(code)
        }
        assert shown <= ours | launchers, (page.name, shown - ours - launchers)


def test_two_commands_are_make_targets() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("pretrain", "test"):
        assert any(f"make {target}" in block.commands for block in blocks_of(ROOT / "README.md"))
        assert re.search(f"^{target}:", makefile, flags=re.M)
    line = "deepspeed deltalm_ds/pretrain.py --deepspeed_config ds_configs/zero2.json"
    assert f"\t{line}\n" in makefile
    assert f"`{line}`" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_readme_runs(tmp_path: Path) -> None:
    """All blocks that are not marked otherwise, in order, in a copy of the repository."""
    for name in COPIED:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    blocks = [block.commands for block in blocks_of(ROOT / "README.md") if block.not_run is None]
    assert any(LAUNCHED in block for block in blocks)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    for block in blocks:
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", block],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stdout[-4000:]
    assert (tmp_path / "runs/mine/checkpoints/latest").exists()
