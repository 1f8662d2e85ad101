"""The command prepare: from files of text to a folder that opens."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deltalm_ds import prepare as command
from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.indexed_files import IndexedFiles
from deltalm_ds.errors import UserError
from deltalm_ds.prepare import PrepareSettings, prepare
from deltalm_ds.text.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent


def sentences(seed: int, count: int) -> list[str]:
    generator = random.Random(seed)
    syllables = ["ba", "ne", "lo", "ki", "tu", "ré", "so", "mi"]
    words = ["".join(generator.choices(syllables, k=3)) for _ in range(60)]
    return [" ".join(generator.choices(words, k=8)) for _ in range(count)]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "fr.txt").write_text("\n\n".join(sentences(1, 60)), encoding="utf-8")
    (folder / "de.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in sentences(2, 40)))
    (folder / "train.fr").write_text("\n".join(sentences(3, 50)), encoding="utf-8")
    (folder / "train.en").write_text("\n".join([*sentences(4, 49), ""]) + "\n", encoding="utf-8")
    (folder / "valid.en").write_text("\n".join(sentences(5, 6)), encoding="utf-8")
    (folder / "valid.fr").write_text("\n".join(sentences(6, 6)), encoding="utf-8")
    return folder


def make(text: Path, output: Path, **changed: Any) -> list[str]:
    """Prepare `text` into `output`; what was said."""
    said: list[str] = []
    settings = {"vocabulary_size": 100, "character_coverage": 1.0, "workers": 1, **changed}
    prepare(PrepareSettings(inputs=(text,), output=output, **settings), said.append)
    return said


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deltalm_ds.prepare", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_folder_and_the_report(text: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "corpus"
    said = make(text, output)
    corpus = Corpus.open(output, verify=True)
    assert [source.name for source in corpus.sources("train")] == ["de", "fr", "en-fr"]
    assert [source.name for source in corpus.sources("valid")] == ["de", "fr", "en-fr"]
    assert corpus.vocabulary.num_pieces == 100
    assert corpus.manifest.dtype == "uint16"
    assert Tokenizer(corpus.tokenizer_path, corpus.vocabulary).fingerprint == corpus.manifest.tokenizer.sha256
    assert [path.name for path in output.parent.iterdir()] == ["corpus"]

    understood = said[0].splitlines()
    assert understood == [
        f"en-fr, pairs, line by line: {text / 'train.en'} + train.fr",
        f"en-fr, pairs, line by line, held out for validation: {text / 'valid.en'} + valid.fr",
        f"de, JSON lines, text in field 'text': {text / 'de.jsonl'}",
        f"fr, documents between blank lines: {text / 'fr.txt'}",
    ]
    assert said[-3].splitlines() == ["left out of  read  blank", "en-fr          56      1"]
    rows = {line.split()[0]: line.split()[1:] for line in said[-4].splitlines()}
    num_tokens = dict.fromkeys(("de", "fr", "en-fr"), 0)
    for source in corpus.manifest.sources:
        num_tokens[source.name] += source.tokens
    assert rows["source"] == ["documents", "lines", "tokens", "characters/token", "unknown", "validation"]
    assert rows["fr"][:3] == ["60", "60", f"{num_tokens['fr']:,}"]
    assert rows["en-fr"][:2] == ["55", "110"]
    assert rows["en-fr"][5] == f"{6 / 55:.2%}"
    assert rows["fr"][4:] == ["0.000%", f"{1 / 60:.2%}"]
    assert rows["all"][0] == "155"


def test_files_do_not_depend_on_the_workers_or_the_order_of_inputs(text: Path, tmp_path: Path) -> None:
    make(text, tmp_path / "one")
    make(text, tmp_path / "two", workers=2)
    settings = PrepareSettings(
        inputs=tuple(sorted(text.iterdir(), reverse=True)),
        output=tmp_path / "named",
        vocabulary_size=100,
        character_coverage=1.0,
        workers=1,
    )
    prepare(settings, lambda _: None)
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "named")


def test_a_given_tokenizer(text: Path, tmp_path: Path) -> None:
    make(text, tmp_path / "first")
    model = tmp_path / "first" / "tokenizer.model"
    make(text, tmp_path / "second", tokenizer=model)
    first, second = contents(tmp_path / "first"), contents(tmp_path / "second")
    assert first.pop("manifest.json") != second.pop("manifest.json")  # the recipe is another
    assert first == second
    assert Corpus.open(tmp_path / "first").fingerprint == Corpus.open(tmp_path / "second").fingerprint


def test_a_second_run_does_nothing_unless_something_changed(text: Path, tmp_path: Path) -> None:
    output = tmp_path / "corpus"
    make(text, output)
    before = contents(output)
    assert make(text, output, workers=2)[-1].endswith("nothing to do")
    assert contents(output) == before
    with pytest.raises(UserError, match="other settings"):
        make(text, output, seed=1)
    with (text / "fr.txt").open("a") as file:
        file.write("\n\nba ne")
    with pytest.raises(UserError, match="other text"):
        make(text, output)
    assert contents(output) == before
    make(text, output, overwrite=True)
    assert contents(output) != before
    assert make(text, output)[-1].endswith("nothing to do")
    assert [path.name for path in tmp_path.iterdir()].count("corpus") == 1


def test_a_damaged_folder_is_not_taken_for_done(text: Path, tmp_path: Path) -> None:
    output = tmp_path / "corpus"
    make(text, output)
    whole = contents(output)
    damaged = bytearray(whole["train/fr.bin"])
    damaged[3] ^= 1
    (output / "train/fr.bin").write_bytes(damaged)
    with pytest.raises(UserError, match=r"fr\.bin is damaged.*--overwrite"):
        make(text, output)
    make(text, output, overwrite=True)
    assert contents(output) == whole


@pytest.mark.parametrize("overwrite", [False, True])
def test_other_peoples_folders_are_never_touched(text: Path, tmp_path: Path, overwrite: bool) -> None:
    output = tmp_path / "home"
    output.mkdir()
    (output / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds other files"):
        make(text, output, overwrite=overwrite)
    with pytest.raises(UserError, match="is a file"):
        make(text, output / "letter.txt", overwrite=overwrite)
    assert contents(output) == {"letter.txt": b"dear"}


def test_an_empty_folder_is_filled(text: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    make(text, tmp_path / "corpus")
    Corpus.open(tmp_path / "corpus", verify=True)


def spoil_encoding(text: Path) -> None:
    with (text / "fr.txt").open("ab") as file:
        file.write(b"\n\nd\xe9j\xe0 vu")


def spoil_by_emptying(text: Path) -> None:
    (text / "fr.txt").write_text("")


def spoil_alignment(text: Path) -> None:
    with (text / "train.fr").open("a") as file:
        file.write("\nba")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_encoding, "not UTF-8 at line 121, byte offset"),
        (spoil_by_emptying, "there is no text"),
        (spoil_alignment, "ends after line 50"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_bad_text_is_an_error_and_makes_no_folder(
    text: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str, workers: int
) -> None:
    spoil(text)
    with pytest.raises(UserError, match=message):
        make(text, tmp_path / "corpus", workers=workers)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"vocabulary_size": 5000}, r"the largest is --vocabulary-size \d+"),
        ({"vocabulary_size": 6}, "--character-coverage"),
        ({"vocabulary_size": 3}, "--vocabulary-size must be at least 4"),
        ({"workers": 0}, "--workers must be at least 1"),
        ({"validation_share": 1.5}, "--validation-share must be within"),
        ({"seed": -1}, "--seed must not be negative"),
        ({"tokenizer_sample_mb": 0}, "--tokenizer-sample-mb"),
        ({"tokenizer": Path("missing.model")}, "missing.model does not exist"),
        ({"text_field": "body"}, "no field 'body'"),
    ],
)
def test_options_that_do_not_fit(text: Path, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make(text, tmp_path / "corpus", **changed)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "corpus").exists()


def test_nothing_but_validation_text_trains_no_tokenizer(text: Path, tmp_path: Path) -> None:
    for path in text.iterdir():
        if not path.name.startswith("valid"):
            path.unlink()
    with pytest.raises(UserError, match="all inputs are for validation"):
        make(text, tmp_path / "corpus")


def test_a_full_disk_leaves_the_old_folder_and_says_so(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "corpus"
    make(text, output)
    before = contents(output)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(IndexedFiles, "write", fail)
    settings = PrepareSettings(inputs=(text,), output=output, vocabulary_size=90, overwrite=True, workers=1)
    monkeypatch.setattr(command, "parse", lambda *_: settings)
    with pytest.raises(UserError, match=r"corpus: No space left on device; what is done is kept in .*\.work"):
        command.main()
    assert contents(output) == before
    monkeypatch.undo()
    prepare(settings, lambda _: None)
    assert contents(output) != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "text"]


def test_a_really_full_disk_says_so(text: Path, tmp_path: Path) -> None:
    """A file system of its own that the tokenizer's file fills up to a page or two."""
    make(text, tmp_path / "first")
    model, disk = tmp_path / "first" / "tokenizer.model", tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size={model.stat().st_size // 1024 + 8}k tmpfs {disk}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    (text / "fr.txt").write_text("\n\n".join(sentences(1, 2000)), encoding="utf-8")
    arguments = [text, "--output", disk / "corpus", "--tokenizer", model, "--workers", 1]
    program = f'{mount} && exec "$0" -m deltalm_ds.prepare "$@"'
    failed = subprocess.run(
        ["unshare", "-m", "sh", "-c", program, sys.executable, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 2
    assert failed.stderr == (
        f"deltalm-ds prepare: error: {disk / 'corpus'}: No space left on device; nothing was written\n"
    )


def test_an_error_without_a_reason_shows_what_it_says(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("12 requested and 0 written")

    monkeypatch.setattr(IndexedFiles, "write", fail)
    settings = PrepareSettings(inputs=(text,), output=tmp_path / "corpus", vocabulary_size=90, workers=1)
    monkeypatch.setattr(command, "parse", lambda *_: settings)
    with pytest.raises(UserError, match="corpus: 12 requested and 0 written; what is done is kept"):
        command.main()


def test_a_reader_of_the_output_that_has_left_is_no_failed_write(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Left(io.StringIO):
        def write(self, text: str) -> int:
            if output.exists():
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            return super().write(text)

    output = tmp_path / "corpus"
    settings = PrepareSettings(inputs=(text,), output=output, vocabulary_size=90, workers=1)
    monkeypatch.setattr(command, "parse", lambda *_: settings)
    monkeypatch.setattr(sys, "stdout", Left())
    with pytest.raises(BrokenPipeError):
        command.main()
    Corpus.open(output, verify=True)


def test_a_reader_that_leaves_at_once_ends_the_command_and_is_named(text: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "deltalm_ds.prepare", str(text), "--output", str(tmp_path / "corpus")]
    done = subprocess.run(
        [*command, "--vocabulary-size", "90"], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert done.returncode == 2
    (said,) = done.stderr.splitlines()
    assert "left before the folder was finished; nothing was written" in said
    assert not (tmp_path / "corpus").exists()


def test_the_command_and_its_exit_codes(text: Path, tmp_path: Path) -> None:
    done = run_command(
        text,
        "--output",
        tmp_path / "corpus",
        "--vocabulary-size",
        100,
        "--character-coverage",
        1,
        "--workers",
        2,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{tmp_path / 'corpus'} is ready" in done.stdout
    Corpus.open(tmp_path / "corpus", verify=True)

    for arguments, message in (
        ([text, "--output", tmp_path / "x", "--vocabulary-sise", "5"], "--vocabulary-sise"),
        ([tmp_path / "missing", "--output", tmp_path / "x"], "does not exist"),
        ([text, "--output", tmp_path / "corpus", "--seed", 9], "--overwrite"),
    ):
        failed = run_command(*arguments)
        assert failed.returncode == 2
        assert message in failed.stderr
        assert failed.stderr.count("\n") == 1
        assert failed.stderr.startswith("deltalm-ds prepare: error: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "text"]


@pytest.mark.parametrize("name", ["prepare", "corpus"])
def test_neither_torch_nor_deepspeed_is_imported(name: str) -> None:
    heavy = ("torch", "deepspeed", "transformers")
    program = f"import sys, deltalm_ds.{name}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
