"""Every task from its public format to a score, through the commands that users type."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_tasks import write_task

from deltalm_ds.downstream.options import ReadingOptions
from deltalm_ds.downstream.reading import read_examples
from deltalm_ds.downstream.registry import TASKS

ROOT = Path(__file__).parents[1]
LEAST = 95.0

# Of data that do not name their languages; what a task needs to learn 64 examples by heart from nothing.
LANGUAGES = {
    "translation": {"source_language": "en", "target_language": "fr"},
    "question-generation": {"source_language": "zh"},
    "summarization": {"source_language": "fr"},
}
# Optimizer steps; facts take longer, for either of two texts may follow a source.
STEPS = {"data-to-text": 400}


def run(*arguments: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_model_trained_on_64_examples_reproduces_them(name: str, tmp_path: Path) -> None:
    data = write_task(name, tmp_path / "data")
    task = TASKS[name]
    options = ReadingOptions(**LANGUAGES.get(name, {}))
    languages = [
        part
        for side, language in LANGUAGES.get(name, {}).items()
        for part in (f"--{side.replace('_', '-')}", language)
    ]
    run(
        *("deltalm_ds/finetune.py", "--task", name, "--data", data, *languages),
        *("--output", tmp_path / "run", "--steps", STEPS.get(name, 150), "--batch-tokens", 1500),
        *("--learning-rate", 3e-3, "--warmup-steps", 20, "--dropout", 0, "--label-smoothing", 0),
        *("--freeze", "--beam", 1, "--validate-every", 1000, "--save-every", 1000),
        *("--max-source-length", 128, "--max-target-length", 96, "--num-loader-workers", 0),
    )
    examples = list(read_examples([data], task, "train", options))
    assert len(examples) == 64
    hypotheses, references = [], []
    for language in dict.fromkeys(example.target_language for example in examples):
        of_language = [example for example in examples if example.target_language == language]
        outputs = run(
            *("-m", "deltalm_ds.generate", tmp_path / "run" / "model", "--beam", 1),
            *("--target-language", language),
            stdin="".join(f"{example.source}\n" for example in of_language),
        ).stdout
        assert outputs.count("\n") == len(of_language)
        hypotheses += outputs.splitlines()
        references += [example.targets for example in of_language]
    files = [tmp_path / "hypotheses"]
    write_lines(files[0], hypotheses)
    for number in range(max(map(len, references))):
        files.append(tmp_path / f"reference{number}")
        write_lines(files[-1], [texts[number] if number < len(texts) else "" for texts in references])
    scored = run(
        *("-m", "deltalm_ds.score", files[0], "--references", *files[1:], "--metrics", task.metric),
        *("--language", examples[0].target_language, "--json", "-"),
    )
    (direction,) = json.loads(scored.stdout)["directions"]
    assert min(score_of(direction["metrics"][task.metric]["parts"]).values()) >= LEAST


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def score_of(parts: dict[str, float]) -> dict[str, float]:
    """The metric itself, or the ROUGE scores that it consists of; not what lies behind BLEU."""
    return {name: value for name, value in parts.items() if name.startswith(("bleu", "rouge"))}
