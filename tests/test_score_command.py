"""The command score: tables, JSON, groups, manifests, mistakes, and what docs/scoring.md shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run_command(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deltalm_ds.score", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four examples: TER is 1 edit of 4 words in the first, 0 elsewhere."""
    files = {
        "out": "a b c d\ne f\ng h\n\n",
        "gold": "a b x d\ne f\ng h\ni j\n",
        "more": "\n\ng h i j\n\n",
        "worse": "a y x z\ne z\nz h\ni\n",
        "groups": "Airport\nFood\nAirport\nFood\n",
        "seen": "Food\nCity\n",
        "sources": "A  b c d\nx\ny\n\n",
        "latin1": "caf\xe9\n\n\n\n",
        "short": "a\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="latin-1")
    return tmp_path


OUT = ("out", "--references", "gold", "--language", "fr")


def test_table(folder: Path) -> None:
    done = run_command(folder, *OUT, "--metrics", "ter", "rouge1", "--sources", "sources")
    assert (done.returncode, done.stderr) == (0, "")
    scores, outputs, signatures = done.stdout.split("\n\n")
    # 1 edit and 2 missing words of 10; F1 of 3/4, 1, 1, 0.
    assert [line.split() for line in scores.splitlines()] == [
        ["lines", "ter", "rouge1"],
        ["all", "4", "30.00", "68.75"],
    ]
    assert outputs.splitlines()[1].split() == ["all", "4", "1", "0", "0", "1", "75.00%"]
    assert re.search(r"^ter  nrefs:1\|case:lc\|tok:tercom", signatures, flags=re.MULTILINE)
    assert re.search(
        r"^rouge1  nrefs:1\|multi:max\|tok:comparable\|stem:no\|", signatures, flags=re.MULTILINE
    )


def test_blank_references_are_none(folder: Path) -> None:
    """An empty second one would make the mean length of references half as long."""
    options = ("--references", "gold", "more", "--language", "fr", "--metrics", "ter", "--json", "-")
    result = json.loads(run_command(folder, "out", *options).stdout)["directions"][0]
    assert result["metrics"]["ter"]["parts"]["ter"] == pytest.approx(100 * 3 / (4 + 2 + 3 + 2))
    assert result["signatures"]["ter"].startswith("nrefs:var")


def test_groups_seen_and_unseen(folder: Path) -> None:
    options = ("--metrics", "rouge1", "--groups", "groups", "--seen", "seen", "--json", "scores.json")
    done = run_command(folder, *OUT, *options)
    assert [line.split()[:-1] for line in done.stdout.split("\n\n")[0].splitlines()[1:]] == [
        *(["all", "4"], ["seen", "2"], ["unseen", "2"], ["group", "Airport", "2"], ["group", "Food", "2"]),
    ]
    result = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["directions"][0]
    values = {
        name: subset["metrics"]["rouge1"]["parts"]["rouge1"]
        for name, subset in {**result["groups"], **{key: result[key] for key in ("seen", "unseen")}}.items()
    }
    assert values == pytest.approx({"Airport": 87.5, "Food": 50, "seen": 50, "unseen": 87.5})


def test_interval_and_baseline(folder: Path) -> None:
    options = ("--metrics", "rouge1", "ter", "--baseline", "worse", "--confidence", "--resamples", "50")
    done = run_command(folder, *OUT, *options, "--json", "scores.json")
    assert re.search(r"^all +4 +68\.75 \[[\d.]+, 100\.00\]", done.stdout, flags=re.MULTILINE)
    assert "against the baseline" in done.stdout
    assert "p-values  paired randomisation|resamples:50|seed:12345" in done.stdout
    content = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    result = content["directions"][0]["metrics"]
    low, high = result["rouge1"]["intervals"]["rouge1"]
    assert low <= 68.75 <= high
    # Of four, two, two and two words two, one, one and one; the last example has one word of two.
    assert result["rouge1"]["baseline"]["rouge1"] == pytest.approx(100 * (0.5 + 0.5 + 0.5 + 2 / 3) / 4)
    assert 1 / 51 <= result["ter"]["p_values"]["ter"] <= 1
    assert content["paired_test"] == {"method": "randomisation", "resamples": 50, "seed": 12345}
    assert run_command(folder, *OUT, *options).stdout == done.stdout, "the draws differ"


def test_averages_over_directions(folder: Path) -> None:
    """Equal weights, whatever the lengths; each with the tokenizer of its language."""
    (folder / "zh").write_text("谁写了这本书\n", encoding="utf-8")
    entries = [
        ("fr", "en", "out", "gold"),
        ("en", "zh", "zh", "zh"),
        ("de", "en", "short", "short"),
    ]
    directions = [
        {"source_language": a, "target_language": b, "hypotheses": hypotheses, "references": [gold]}
        for a, b, hypotheses, gold in entries
    ]
    (folder / "manifest.json").write_text(json.dumps({"directions": directions}))
    done = run_command(
        folder, "--manifest", "manifest.json", "--metrics", "rouge", "bleu", "--json", "scores.json"
    )
    rows = {line[: line.rfind("  ", 0, 25)].strip(): line.split() for line in done.stdout.splitlines()}
    assert list(rows)[1:4] == ["fr-en", "en-zh", "de-en"]
    averages = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["averages"]
    found = {name: average["values"]["rouge1"] for name, average in averages.items()}
    assert found == pytest.approx(
        {"all directions": (68.75 + 200) / 3, "X→en": (68.75 + 100) / 2, "en→X": 100}
    )
    assert re.search(r"^mean of X→en \(2\) +84\.38 ", done.stdout, flags=re.MULTILINE)
    assert re.search(r"^bleu  .*tok:zh.*  \(en-zh\)$", done.stdout, flags=re.MULTILINE)
    assert re.search(r"^rouge  .*tok:comparable.*  \(fr-en, de-en\)$", done.stdout, flags=re.MULTILINE)


def test_wrong_language(folder: Path) -> None:
    (folder / "en").write_text("the cat sleeps in the big house and dreams of milk\n" * 60)
    (folder / "fr").write_text("le chat dort dans la grande maison et rêve de lait\n" * 60)
    (folder / "mixed").write_text("le lait\nthe milk\nmilk\n\n")
    options = ("--metrics", "chrf", "--language-samples", "en=en", "fr=fr", "--json", "-")
    done = run_command(folder, "mixed", *OUT[1:], *options)
    outputs = json.loads(done.stdout)["directions"][0]["outputs"]
    assert (outputs["num_wrong_script"], outputs["num_wrong_language"], outputs["num_empty"]) == (0, 2, 1)
    assert outputs["right_language"] == pytest.approx(0.25)
    assert outputs["identified"] == {"en": 2, "fr": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("out",), "--references is missing"),
        (("out", "--references", "short", "--language", "fr"), "out has 4 lines and short 1"),
        (("out", "--references", "latin1", "--language", "fr"), "latin1 is not UTF-8 at line 1"),
        (("out", "--references", "more", "--language", "fr"), "line 1 of more is blank"),
        ((*OUT, "--metrics", "blue"), "'blue' is no metric: name one of bleu, chrf"),
        ((*OUT, "--metrics", "meteor"), "meteor cannot be computed here: it needs the METEOR 1.5 program"),
        ((*OUT, "--metrics", "ter", "ter"), "ter twice"),
        (("out", "--references", "gold", "--language", "french"), "--language 'french' is none"),
        ((*OUT, "--json", "gold"), "gold exists"),
        ((*OUT, "--json", "nowhere/scores.json"), "nowhere is no folder"),
        ((*OUT, "--resamples", "3"), "--resamples must be 40 or more"),
        ((*OUT, "--seen", "seen"), "--groups"),
        ((*OUT, "--groups", "groups", "--seen", "short"), "short names none of the groups"),
        ((*OUT, "--groups", "sources"), "line 4 of the groups of all is blank: name a group"),
        ((*OUT, "--manifest", "m.yaml"), "leave out HYPOTHESES"),
        (("--manifest", "m.yaml"), "m.yaml: No such file"),
        ((*OUT, "--language-samples", "fr"), "give each language once, as fr=FILE"),
        ((*OUT, "--bleu-tokenizer", "13"), "bleu-tokenizer"),
    ],
)
def test_mistakes(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    before = sorted(folder.iterdir())
    done = run_command(folder, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(folder.iterdir()) == before


def test_neither_torch_nor_deepspeed() -> None:
    script = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'deepspeed', 'transformers'])); "
        "import deltalm_ds.score, deltalm_ds.scoring.metrics"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_page_runs(tmp_path: Path) -> None:
    """All bash blocks of docs/scoring.md, in order, in one folder; tables are as shown."""
    page = (ROOT / "docs/scoring.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(bash|text|yaml)\n(.*?)```", page, flags=re.DOTALL)
    assert len([kind for kind, _ in blocks if kind == "bash"]) == 5
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    printed = ""
    for kind, block in blocks:
        if kind == "yaml":
            (tmp_path / "manifest.yaml").write_text(block, encoding="utf-8")
        elif kind == "text":
            assert re.sub(r"version:\S+", "", printed) == re.sub(r"version:\S+", "", block)
        else:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            printed = done.stdout
