"""The command corpus: tables, samples, verification."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest
from made_corpus import write_random_corpus

from deltalm_ds import corpus as command
from deltalm_ds.corpus import CorpusSettings, describe_corpus, sample_texts
from deltalm_ds.data.corpus import Corpus
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


def test_tables(tmp_path: Path) -> None:
    corpus = Corpus.open(write_random_corpus(tmp_path / "corpus"))
    text = describe_corpus(corpus, 0.8, 0.3)
    training, validation = text.split("training\n")[1].split("validation\n")
    rows = {line.split()[0]: line.split()[1:] for line in training.splitlines() if line}
    tokens = {source.name: source.num_tokens for source in corpus.sources("train")}
    assert rows["source"] == ["documents", "pairs", "tokens", "mixture"]
    shares = {name: tokens[name] ** 0.3 for name in ("de", "fr")}
    for name, share in shares.items():
        assert rows[name][-2:] == [f"{tokens[name]:,}", f"{0.8 * share / sum(shares.values()):.2%}"]
    assert rows["de"][0] == "60"
    assert rows["de-fr"] == ["80", f"{tokens['de-fr']:,}", "20.00%"]
    assert rows["all"] == ["150", "80", f"{sum(tokens.values()):,}", "100.00%"]
    assert validation.splitlines()[-1].split()[:3] == ["all", "8", "12"]
    assert corpus.fingerprint[:16] in text


def test_samples(real: Path) -> None:
    corpus = Corpus.open(real)
    tokenizer = Tokenizer(corpus.tokenizer_path, corpus.vocabulary)
    french, pairs = corpus.sources("train")
    whole = list(sample_texts(french, tokenizer, 3, 1000))
    assert len(whole) == 3
    for text in whole:
        number = text.split()[2]
        assert text == f"la page {number} du livre la fin {number}"
    assert all(text.endswith(" …") for text in sample_texts(french, tokenizer, 3, 5))
    source, target = next(sample_texts(pairs, tokenizer, 1, 1000)).split(" → ")
    assert target == f"la {source}"
    assert len(list(sample_texts(pairs, tokenizer, 1000, 10))) == pairs.dataset.num_documents


def test_the_command(real: Path) -> None:
    done = run_command(real, "--samples", 2, "--verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert "bytes are as the manifest says" in done.stdout
    assert done.stdout.count("\nfr: la page") == 2
    assert done.stdout.count(" → la page") == 2


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
def test_samples_of_damaged_data_name_the_file(real: Path, file: str, part: str, message: str) -> None:
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
        list(sample_texts(corpus.sources("train")[0], tokenizer, 1, 60))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def test_exit_codes(real: Path) -> None:
    failures = [
        run_command(real, "--sample", "3"),
        run_command(real.parent / "text"),
        run_command(real, "--samples", -1),
    ]
    truncate(real / "train/fr.idx")
    failures.append(run_command(real))
    (real / "tokenizer.model").write_bytes(b"x")
    failures.append(run_command(real))
    messages = ["--sample", "is not a prepared folder", "--samples", "fr.idx has", "not the tokenizer"]
    for failed, message in zip(failures, messages, strict=True):
        assert failed.returncode == 2
        assert message in failed.stderr
        assert failed.stderr.count("\n") == 1
