"""The stories: coherent, the same bytes for the same seed, and enough text to train a tokenizer on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece

from deltalm_ds.demo import NUM_DOCUMENTS, PAIRS, monolingual_documents, write_sample
from deltalm_ds.demo.draws import Draws
from deltalm_ds.demo.frames import Joined, Mention, Person, Remark, draw_document
from deltalm_ds.demo.languages import LANGUAGES, Language


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder)
    return folder


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_draws_are_pinned() -> None:
    """The sample must not change with the Python version."""
    draws = Draws(seed=3, label="mono/en", position=5)
    assert [draws.below(1000) for _ in range(5)] == [92, 306, 309, 159, 632]
    assert sorted(Draws(0, "x", 0).sample("abcdef", 6)) == list("abcdef")
    counts = [Draws(0, "weights", i).weighted({"a": 1, "b": 3}) for i in range(400)].count("b")
    assert 250 < counts < 350


def mentions(frame: object) -> list[Mention]:
    if isinstance(frame, Joined):
        return [frame.first.who, frame.second.who]
    if isinstance(frame, Remark):
        return []
    return [frame.who if hasattr(frame, "who") else frame.clause.who]  # type: ignore[attr-defined]


def test_pronouns_mean_the_last_person_and_roles_come_first() -> None:
    keys = Language("en").keys()
    num_pronouns = 0
    for position in range(300):
        seen: set[Person] = set()
        before: list[Mention] = []
        for frame in draw_document(Draws(0, "test", position), keys):
            now = mentions(frame)
            for mention in now:
                assert (mention.form == "role") == (mention.person not in seen)
                seen.add(mention.person)
            if now and now[0].form == "pronoun":
                num_pronouns += 1
                assert [mention.person for mention in before] == [now[0].person]
            before = now or before
        assert len(seen) <= 2
    assert num_pronouns > 200


def test_files_and_their_form(sample: Path) -> None:
    assert sorted(path.stem for path in (sample / "mono").iterdir()) == list(LANGUAGES)
    for code in LANGUAGES:
        documents = (sample / "mono" / f"{code}.txt").read_text(encoding="utf-8").split("\n\n")
        assert len(documents) == NUM_DOCUMENTS + len(Language(code).paragraphs())
        assert all(4 <= len(document.strip().splitlines()) <= 9 for document in documents)
    for source, target in PAIRS:
        folder = sample / "pairs" / f"{source}-{target}"
        sides = [
            (folder / f"train.{code}").read_text(encoding="utf-8").splitlines() for code in (source, target)
        ]
        assert len(sides[0]) == len(sides[1]) > 500
        assert all(line.strip() for side in sides for line in side)
    assert len(PAIRS) == len(set(PAIRS)) >= 10
    assert 1.5e6 < sum(map(len, all_bytes(sample).values())) < 3e6


def test_pairs_tell_the_same_story(sample: Path) -> None:
    """Latin names and numbers are the same on both sides of every line."""
    names = set(Language("en").tables["women"].values()) | set(Language("en").tables["men"].values())
    folder = sample / "pairs" / "en-de"
    sides = [(folder / f"train.{code}").read_text(encoding="utf-8").splitlines() for code in ("en", "de")]
    num_named = 0
    for english, german in zip(*sides, strict=True):
        found = [
            [word for word in re.findall(r"\w+", line) if word in names or word.isdigit()]
            for line in (english, german)
        ]
        assert sorted(found[0]) == sorted(found[1])
        num_named += bool(found[0])
    assert num_named > 300


def test_same_bytes_in_another_process_and_others_for_another_seed(sample: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deltalm_ds.demo", str(tmp_path / "again")]
    subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": "7"}, check=True)
    assert all_bytes(tmp_path / "again") == all_bytes(sample)
    write_sample(tmp_path / "other", seed=1)
    other = all_bytes(tmp_path / "other")
    assert not any(other[name] == content for name, content in all_bytes(sample).items())


def test_monolingual_text_is_not_a_translation() -> None:
    """The two halves of a pair tell the same stories, two monolingual files do not."""
    english, pretended_german = Language("en"), Language("en")
    pretended_german.code = "de"
    stories = [list(monolingual_documents(language, seed=0))[5:] for language in (english, pretended_german)]
    assert not any(ours == theirs for ours, theirs in zip(*stories, strict=True))


def test_variety(sample: Path) -> None:
    """Most sentences of a language are unique, so that there is more to learn than a list."""
    for code in LANGUAGES:
        text = (sample / "mono" / f"{code}.txt").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line]
        assert len(set(lines)) > 0.6 * len(lines), code


def test_a_vocabulary_of_4000_pieces_can_be_trained(sample: Path, tmp_path: Path) -> None:
    files = [str(path) for path in sorted((sample / "mono").iterdir())]
    prefix = tmp_path / "tokenizer"
    sentencepiece.SentencePieceTrainer.train(
        input=files, model_prefix=str(prefix), vocab_size=4000, num_threads=1, minloglevel=2
    )
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    assert tokenizer.get_piece_size() == 4000
    text = "\n".join(Path(file).read_text(encoding="utf-8") for file in files)
    pieces = tokenizer.encode(text.splitlines())
    assert sum(line.count(tokenizer.unk_id()) for line in pieces) < 0.003 * sum(map(len, pieces))
