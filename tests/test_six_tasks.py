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
VOCABULARY = {
    "translation": 63,
    "question-generation": 63,
    "summarization": 63,
    "cross-lingual-summarization": 63,
    "data-to-text": 63,
    "zero-shot-summarization": 63,
}


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
        *("--output", tmp_path / "run", "--vocabulary-size", VOCABULARY[name]),
        *("--steps", 150, "--batch-tokens", 1500, "--learning-rate", 3e-3, "--warmup-steps", 20),
        *("--dropout", 0, "--label-smoothing", 0, "--beam", 1, "--freeze"),
        *("--validate-every", 75, "--save-every", 1000, "--num-loader-workers", 0),
        *("--max-source-length", 128, "--max-target-length", 96),
    )
    examples = list(read_examples([data], task, "train", options))
    assert len(examples) == 64
    written = {"sources": [], "hypotheses": [], "references": []}
    for language in dict.fromkeys(example.target_language for example in examples):
        of_language = [example for example in examples if example.target_language == language]
        sources = "".join(f"{example.source}\n" for example in of_language)
        outputs = run(
            *("-m", "deltalm_ds.generate", tmp_path / "run" / "model", "--beam", 1),
            *("--target-language", language),
            stdin=sources,
        ).stdout
        assert outputs.count("\n") == len(of_language)
        written["hypotheses"] += outputs.splitlines()
        written["references"] += [example.targets for example in of_language]
    num_references = max(map(len, written["references"]))
    (tmp_path / "hypotheses").write_text("".join(f"{line}\n" for line in written["hypotheses"]))
    references = []
    for number in range(num_references):
        references.append(tmp_path / f"reference{number}")
        lines = (texts[number] if number < len(texts) else "" for texts in written["references"])
        references[-1].write_text("".join(f"{line}\n" for line in lines))
    scored = run(
        *("-m", "deltalm_ds.score", tmp_path / "hypotheses", "--references", *references),
        *("--metrics", task.metric, "--language", examples[0].target_language, "--json", "-"),
    )
    print(json.loads(scored.stdout))
    assert False
