"""Training a tokenizer, and text to ids and back."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
import sentencepiece

from deltalm_ds.errors import UserError
from deltalm_ds.text.tokenizer import Tokenizer, train_tokenizer
from deltalm_ds.text.vocabulary import Vocabulary


def made_up_lines(count: int = 400) -> list[str]:
    """Lines of words made of syllables, the same at every call."""
    generator = random.Random(5)
    syllables = ["ba", "ne", "lo", "ki", "tu", "ré", "so", "mi", "dar", "vel"]
    words = ["".join(generator.choices(syllables, k=generator.randint(1, 4))) for _ in range(200)]
    return [" ".join(generator.choices(words, k=12)) for _ in range(count)]


@pytest.fixture(scope="module")
def model() -> bytes:
    return train_tokenizer(made_up_lines(), 120, 1.0)


@pytest.fixture
def tokenizer(model: bytes, tmp_path: Path) -> Tokenizer:
    (tmp_path / "made.model").write_bytes(model)
    return Tokenizer(tmp_path / "made.model")


def test_training_is_deterministic(model: bytes) -> None:
    assert train_tokenizer(iter(made_up_lines()), 120, 1.0) == model


def test_training_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    train_tokenizer(made_up_lines(50), 60, 1.0)
    assert capfd.readouterr() == ("", "")


def test_long_lines_are_learnt_from() -> None:
    line = " ".join(made_up_lines(200))
    assert len(line) > 10_000
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(train_tokenizer([line], 120, 1.0))
    assert processor.get_piece_size() == 120


def test_the_largest_vocabulary_is_named_and_works() -> None:
    lines = made_up_lines(60)
    with pytest.raises(UserError, match=r"largest is --vocabulary-size \d+$") as caught:
        train_tokenizer(lines, 5000, 1.0)
    largest = int(str(caught.value).rsplit(" ", 1)[1])
    train_tokenizer(lines, largest, 1.0)
    with pytest.raises(UserError, match="largest"):
        train_tokenizer(lines, largest + 1, 1.0)


def test_too_small_a_vocabulary_and_no_text_are_refused() -> None:
    with pytest.raises(UserError, match="--character-coverage"):
        train_tokenizer(made_up_lines(60), 5, 1.0)
    with pytest.raises(UserError, match="no tokenizer can be trained"):
        train_tokenizer([], 100, 1.0)


def test_ids_are_pieces_plus_one_and_unknown_is_three(tokenizer: Tokenizer, tmp_path: Path) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "made.model"))
    text = "bane loki 漢 turéso"
    pieces = processor.encode(text)
    assert tokenizer.encode(text) == [3 if piece == 0 else piece + 1 for piece in pieces]
    assert tokenizer.encode(text).count(3) == 1
    assert [ids.tolist() for ids in tokenizer.encode_batch([text, "", "ba"])] == [
        tokenizer.encode(text),
        [],
        tokenizer.encode("ba"),
    ]
    assert tokenizer.vocabulary == Vocabulary(120)


def test_special_tokens_are_never_read_from_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<s> ba </s> <mask_0> <unk> <pad>")
    assert min(ids) >= 3
    assert max(ids) <= 120


def test_decoding_gives_the_text_back(tokenizer: Tokenizer) -> None:
    for line in made_up_lines(20):
        assert tokenizer.decode(tokenizer.encode(line)) == line


def test_decoding_shows_sentinels_and_leaves_specials_out(tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.vocabulary
    first, second = tokenizer.encode("bane"), tokenizer.encode("loki")
    ids = [
        0,
        *first,
        vocabulary.sentinel_id(0),
        *second,
        2,
        vocabulary.sentinel_id(12),
        1,
        vocabulary.mask_id,
    ]
    ids.append(vocabulary.num_rows - 1)
    assert tokenizer.decode(ids) == "bane <mask_0> loki <mask_12> <mask>"
    assert tokenizer.decode(ids, show_specials=True) == (
        f"<s> bane <mask_0> loki </s> <mask_12> <pad> <mask> <{vocabulary.num_rows - 1}>"
    )


def test_a_model_with_other_special_ids_is_refused(tmp_path: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(made_up_lines()),
        model_writer=model,
        vocab_size=120,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (tmp_path / "t5.model").write_bytes(model.getvalue())
    with pytest.raises(UserError, match=r"t5\.model has <unk>, <s>, </s> = 2, -1, 1 where 0, 1, 2"):
        Tokenizer(tmp_path / "t5.model")


def test_files_that_are_no_model_are_refused(model: bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        Tokenizer(tmp_path / "missing.model")
    for name, content in {"text": b"hello\n" * 50, "empty": b"", "cut": model[: len(model) // 2]}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} is not a SentencePiece model"):
            Tokenizer(tmp_path / name)


def test_a_vocabulary_of_another_size_is_refused(model: bytes, tmp_path: Path) -> None:
    (tmp_path / "made.model").write_bytes(model)
    assert Tokenizer(tmp_path / "made.model", Vocabulary(120, 7)).vocabulary.num_sentinels == 7
    with pytest.raises(UserError, match="120 pieces and the data's vocabulary 121"):
        Tokenizer(tmp_path / "made.model", Vocabulary(121))
