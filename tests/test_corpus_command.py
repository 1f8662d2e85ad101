"""The command corpus: tables, pictures, samples, verification."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from deltalm_ds import corpus as command
from deltalm_ds.corpus import CorpusSettings
from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.fertility import measure_fertility
from deltalm_ds.data.sample_view import view_sample
from deltalm_ds.data.samples import SampleReader
from deltalm_ds.data.settings import DataSettings
from deltalm_ds.errors import UserError
from deltalm_ds.prepare import PrepareSettings, prepare
from deltalm_ds.text.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A corpus with a tokenizer, of one language and one pair."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text/fr.txt").write_text("\n\n".join(f"la page {n} du livre\nla fin {n}" for n in range(30)))
    (tmp_path / "text/train.en").write_text("".join(f"page {n}\n" for n in range(40)))
    (tmp_path / "text/train.fr").write_text("".join(f"la page {n}\n" for n in range(40)))
    settings = PrepareSettings(
        inputs=(tmp_path / "text",),
        output=tmp_path / "corpus",
        vocabulary_size=45,
        character_coverage=1.0,
        workers=1,
    )
    prepare(settings, lambda _: None)
    return tmp_path / "corpus"


def run_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deltalm_ds.corpus", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command(real: Path, tmp_path: Path) -> None:
    """What it prints and draws with a run's options is what that run would see."""
    options = ["--max-source-length", 32, "--monolingual-share", 0.25, "--seed", 5]
    shown = ["--samples", 2, "--position", 70, "--pictures", tmp_path / "pictures", "--verify"]
    done = run_command(real, *shown, *options)
    assert (done.returncode, done.stderr) == (0, "")
    corpus = Corpus.open(real)
    reader = SampleReader(corpus, DataSettings(max_source_length=32, monolingual_share=0.25), 5)
    tokenizer = Tokenizer(corpus.tokenizer_path, corpus.vocabulary)
    for sample in reader.samples([70, 71]):
        assert f"\n\n{view_sample(sample, tokenizer, color=False)}\n" in done.stdout
    assert done.stdout.count("\nposition ") == 2
    training = done.stdout.split("\n\n")[1].splitlines()
    assert training[0] == "training"
    shares = {line.split()[0]: line.split()[-1] for line in training}
    assert (shares["fr"], shares["en-fr"]) == ("25.00%", "75.00%")
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        *("languages.svg", "lengths.svg", "fertility.svg")
    }
    assert f"drawn: {tmp_path / 'pictures/languages.svg'}, " in done.stdout
    assert "bytes are as the manifest says" in done.stdout


def test_colors_are_for_terminals_or_on_demand(real: Path) -> None:
    plain, colored = (run_command(real, "--samples", 1, "--color", color) for color in ("auto", "always"))
    assert "\x1b" not in plain.stdout
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored.stdout) == plain.stdout != colored.stdout


def test_nothing_is_drawn_or_shown_unasked(real: Path) -> None:
    """Nor is matplotlib imported, which takes as long as all the rest."""
    script = (
        "import sys; from deltalm_ds import corpus; sys.argv = ['corpus', sys.argv[1]]; corpus.main(); "
        "assert not {'matplotlib', 'torch'} & sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(real)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "position" not in done.stdout


def test_verify(real: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    settings = CorpusSettings(directory=real, verify=True)
    monkeypatch.setattr(command, "parse", lambda *_: settings)
    command.main()
    assert f"verified: {Corpus.open(real).num_bytes:,} bytes" in capsys.readouterr().out
    content = bytearray((real / "train/fr.bin").read_bytes())
    content[-1] ^= 128
    (real / "train/fr.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"train/fr\.bin is damaged"):
        command.main()
    assert capsys.readouterr().out == "", "shown before it was verified"


@pytest.mark.parametrize(
    ("file", "part", "message"),
    [
        ("fr.idx", "lengths", r"fr\.idx is damaged \(sequence 0 does not end"),
        ("fr.idx", "pointers", r"fr\.idx is damaged \(sequence 1 begins at no token"),
        ("fr.idx", "documents", r"fr\.idx is damaged \(document 0 has impossible sequences"),
        ("fr.idx", "more", r"fr\.idx is damaged \(document 0 of monolingual has 2 sequences"),
        ("fr.bin", "tokens", r"fr\.bin holds token id 65535 at token offset 1"),
    ],
)
def test_documents_of_damaged_data_name_the_file(real: Path, file: str, part: str, message: str) -> None:
    """What costs too much to verify is checked where it is shown."""
    dataset = Corpus.open(real).sources("train")[0].dataset
    lengths_end = 34 + 4 * dataset.num_sequences
    place, value = {
        "lengths": (34, struct.pack("<i", 5)),
        "pointers": (lengths_end + 8, struct.pack("<q", 1 << 40)),
        "documents": (lengths_end + 8 * dataset.num_sequences + 8, struct.pack("<q", -3)),
        "more": (lengths_end + 8 * dataset.num_sequences + 8, struct.pack("<q", 2)),
        "tokens": (2, struct.pack("<H", 65535)),
    }[part]
    content = bytearray((real / "train" / file).read_bytes())
    content[place : place + len(value)] = value
    (real / "train" / file).write_bytes(content)
    corpus = Corpus.open(real)
    tokenizer = Tokenizer(corpus.tokenizer_path, corpus.vocabulary)
    with pytest.raises(UserError, match=message):
        measure_fertility(corpus.sources("train"), tokenizer, 1)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def test_exit_codes(real: Path) -> None:
    failures = [
        run_command(real, "--sample", "3"),
        run_command(real.parent / "text"),
        run_command(real, "--samples", -1),
        run_command(real, "--position", 1 << 62, "--samples", 1),
        run_command(real, "--language-exponent", 2),
        run_command(real, "--num-loader-workers", 1),
        run_command(real, "--pictures", real / "manifest.json"),
    ]
    truncate(real / "train/fr.idx")
    failures.append(run_command(real))
    (real / "tokenizer.model").write_bytes(b"x")
    failures.append(run_command(real))
    messages = [
        *("--sample", "is not a prepared folder", "--samples", "--position", "language_exponent"),
        *("--num-loader-workers", "manifest.json", "fr.idx has", "not the tokenizer"),
    ]
    for failed, message in zip(failures, messages, strict=True):
        assert failed.returncode == 2
        assert message in failed.stderr
        assert failed.stderr.count("\n") == 1
