"""The first pass: counts, mistakes found early, and the tokenizer's sample."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from deltalm_ds.errors import UserError
from deltalm_ds.processes import Workers
from deltalm_ds.text import readers
from deltalm_ds.text.inputs import TextOptions, understand
from deltalm_ds.text.survey import Survey, sample_lines, sampling_rates, survey_inputs


def survey(folder: Path) -> tuple[Survey, int]:
    inputs, _ = understand([folder], TextOptions())
    seen: list[int] = []
    with Workers(1) as workers:
        return survey_inputs(inputs, workers, seen.append), sum(seen)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fr.txt").write_text("é un\ndeux\n\ntrois\n", encoding="utf-8")
    (tmp_path / "valid.fr.txt").write_text("quatre\n")
    (tmp_path / "train.en").write_text("one\n\nthree\n")
    (tmp_path / "train.fr").write_text("un\ndeux\ntroisième\n", encoding="utf-8")
    return tmp_path


def test_counts(folder: Path) -> None:
    result, num_bytes = survey(folder)
    documents = {entry.paths[0].name: count for entry, count in result.num_documents.items()}
    assert documents == {"train.en": 2, "fr.txt": 2, "valid.fr.txt": 1}
    assert sum(result.num_blank_pairs.values()) == 1
    assert result.language_bytes == {"en": 3 + 5, "fr": 5 + 4 + 5 + 2 + len("troisième".encode())}
    assert num_bytes == sum(path.stat().st_size for path in folder.iterdir())


def test_the_digest_sees_every_byte(folder: Path) -> None:
    before = survey(folder)[0].digest
    assert survey(folder)[0].digest == before
    (folder / "valid.fr.txt").write_text("quatre \n")
    assert survey(folder)[0].digest != before


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_input_without_text_is_refused(folder: Path, content: str) -> None:
    (folder / "de.txt").write_text(content)
    with pytest.raises(UserError, match=r"de\.txt: there is no text"):
        survey(folder)


def test_rates_balance_languages() -> None:
    sizes = {"big": 1_000_000, "small": 1_000}
    rates = sampling_rates(sizes, 0.3, 10**9)
    sampled = {language: rates[language] * size for language, size in sizes.items()}
    assert sum(sampled.values()) == pytest.approx(sum(sizes.values()))
    assert sampled["big"] / sampled["small"] == pytest.approx(1000**0.3)
    assert rates["small"] > 1 > rates["big"]
    assert sampling_rates(sizes, 1.0, 10**9) == pytest.approx({"big": 1.0, "small": 1.0})
    halved = sampling_rates(sizes, 0.3, sum(sizes.values()) // 2)
    assert halved == pytest.approx({language: rate / 2 for language, rate in rates.items()}, rel=1e-5)


def test_the_sample_follows_the_rates_and_not_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fr.txt").write_text("".join(f"f {number}\n" for number in range(2000)))
    (tmp_path / "dev.de.txt").write_text("held out\n")
    (tmp_path / "train.en").write_text("".join(f"e {number}\n" for number in range(2000)))
    (tmp_path / "train.fr").write_text("".join(f"p {number}\n" for number in range(2000)))
    inputs, _ = understand([tmp_path], TextOptions())
    rates = {"fr": 0.25, "en": 2.5}
    monkeypatch.setattr(readers, "BLOCK_BYTES", 1000)

    def sample(count: int, seed: int = 3) -> list[str]:
        with Workers(count) as workers:
            return list(sample_lines(inputs, rates, seed, workers, lambda _: None))

    lines = sample(1)
    assert sample(2) == lines
    assert sample(1, seed=4) != lines
    counts = Counter(line.split()[0] for line in lines)
    assert set(counts) == {"f", "e", "p"}
    for kind, expected in {"f": 500, "p": 500, "e": 5000}.items():
        assert abs(counts[kind] - expected) < 100  # five standard deviations
    assert set(Counter(line for line in lines if line[0] == "e").values()) == {2, 3}
