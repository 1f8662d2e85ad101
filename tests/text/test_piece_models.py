"""Tokenizers with fewer and more pieces."""

from __future__ import annotations

import io
import random

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2

from deltalm_ds.errors import UserError
from deltalm_ds.text.piece_models import PieceOrigin, kept_pieces, piece_origins, with_new_pieces
from deltalm_ds.text.tokenizer import train_tokenizer

SYLLABLES = ["ba", "ne", "lo", "ki", "tu", "ré", "so", "mi", "dar", "vel"]
_GENERATOR = random.Random(5)
WORDS = ["".join(_GENERATOR.choices(SYLLABLES, k=_GENERATOR.randint(1, 4))) for _ in range(200)]
LINES = [" ".join(_GENERATOR.choices(WORDS, k=12)) for _ in range(400)]
MODEL = train_tokenizer(LINES, 120, 1.0)
LONG_LINE = " ".join(LINES)
"""Its summed score is so large that a difference of a thousandth would be rounded away."""


def trained(**options: object) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=model,
        minloglevel=2,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        **options,
    )
    return model.getvalue()


BYTE_MODEL = trained(vocab_size=380, byte_fallback=True, user_defined_symbols=["<br>", "never"])


def processor(model: bytes) -> sentencepiece.SentencePieceProcessor:
    made = sentencepiece.SentencePieceProcessor()
    made.LoadFromSerializedProto(model)
    return made


def cut(model: bytes, text: str) -> list[str]:
    return processor(model).encode(text, out_type=str)


def used(model: bytes, texts: list[str]) -> set[int]:
    return {number for numbers in processor(model).encode(texts) for number in numbers}


def pieces(model: bytes) -> list[tuple[str, float, int]]:
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    return [(piece.piece, piece.score, piece.type) for piece in proto.pieces]


texts = st.lists(
    st.lists(
        st.one_of(
            st.sampled_from([*WORDS, "<br>", "never", "ﬁ", "漢字", "🙂", "x"]),
            st.text(st.sampled_from("bnelokituré sodarvx漢<>ﬁ "), max_size=12),
        ),
        max_size=8,
    ).map(" ".join),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("model", [MODEL, BYTE_MODEL], ids=["plain", "bytes and user-defined"])
@settings(max_examples=200, deadline=None)
@given(texts)
def test_text_of_kept_pieces_is_cut_as_before(model: bytes, lines: list[str]) -> None:
    smaller = kept_pieces(model, used(model, lines))
    assert [cut(smaller, line) for line in lines] == [cut(model, line) for line in lines]


def test_what_is_kept_and_in_which_order() -> None:
    keep = {50, 7, 90}
    before, after = pieces(MODEL), pieces(kept_pieces(MODEL, keep))
    lowest = min(range(3, 120), key=lambda number: before[number][1])
    assert after == [before[number] for number in sorted({0, 1, 2, *keep, lowest})]
    proto = sentencepiece_model_pb2.ModelProto.FromString(kept_pieces(MODEL, keep))
    assert proto.trainer_spec.vocab_size == len(after)
    assert processor(kept_pieces(MODEL, set())).get_piece_size() == 4


def test_bytes_and_pieces_of_users_are_kept() -> None:
    after = [piece for piece, _, _ in pieces(kept_pieces(BYTE_MODEL, {300}))]
    assert {"<br>", "never", "<0x00>", "<0xFF>"} <= set(after)
    assert len(after) == 3 + 2 + 256 + 3  # piece 300, the lowest and the highest beside them


def test_the_same_arguments_give_the_same_bytes() -> None:
    assert kept_pieces(MODEL, {9, 5}) == kept_pieces(MODEL, [5, 9])
    new = ["▁qua", "zzz"]
    assert with_new_pieces(MODEL, new) == with_new_pieces(MODEL, new)


def test_numbers_without_a_piece_are_refused() -> None:
    for number in (-1, 120):
        with pytest.raises(ValueError, match="of a model with 120"):
            kept_pieces(MODEL, {5, number})


def test_new_pieces_stand_behind_the_others_and_are_used() -> None:
    new = ["▁banelo", "▁漢字", "漢", "▁banelokitu"]
    larger = with_new_pieces(MODEL, new)
    assert [piece for piece, _, _ in pieces(larger)] == [*(piece for piece, _, _ in pieces(MODEL)), *new]
    assert pieces(larger)[:120] == pieces(MODEL)
    for piece in new:
        if piece.startswith("▁"):
            assert cut(larger, piece[1:]) == [piece]
    assert "漢" in cut(larger, "ba漢ba")
    assert cut(larger, f"{LONG_LINE} banelokitu 漢字")[-2:] == ["▁banelokitu", "▁漢字"]


def test_new_pieces_leave_other_text_alone() -> None:
    larger = with_new_pieces(MODEL, ["▁banelokitu", "▁漢字"])
    assert cut(larger, LONG_LINE) == cut(MODEL, LONG_LINE)
    assert cut(larger, "ba 漢 ñ loki") == cut(MODEL, "ba 漢 ñ loki")  # unknown characters score as before
    assert min(score for _, score, kind in pieces(larger) if kind == 1) == min(
        score for _, score, kind in pieces(MODEL) if kind == 1
    )


def test_scores_of_new_pieces() -> None:
    proto = sentencepiece_model_pb2.ModelProto.FromString(MODEL)
    del proto.pieces[3:]
    for piece, score in {"▁": -2, "a": -2, "b": -2, "c": -3, "rare": -50}.items():
        proto.pieces.add(piece=piece, score=score, type=1)
    model = proto.SerializeToString()
    for new in (["▁ab", "▁abc", "▁xyz"], ["▁xyz", "▁abc", "▁ab"]):
        larger = with_new_pieces(model, new)
        scores = {piece: pytest.approx(score, abs=1e-5) for piece, score, _ in pieces(larger)}
        assert scores["▁ab"] == -6 + 0.1
        assert scores["▁abc"] == -5.9 - 3 + 0.1  # beats the shorter new one as well
        assert scores["▁xyz"] == -50  # of unknown characters
        assert cut(larger, "ab abc xyz abx") == ["▁ab", "▁abc", "▁xyz", "▁ab", "x"]


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (["▁ba", "▁new", "▁new"], "in the tokenizer already|given twice"),
        (["▁qq", "▁qq"], "'▁qq' is given twice"),
        (["<s>"], "in the tokenizer already"),
        ([""], "not a word"),
        (["▁"], "not a word"),
        (["two words"], "not a word"),
        (["▁two▁words"], "not a word"),
        (["ﬁn"], "turns it into 'fin'"),
    ],
)
def test_new_pieces_that_would_not_work_are_refused(new: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_new_pieces(MODEL, new)


def test_other_models_are_refused() -> None:
    bpe = trained(vocab_size=120, model_type="bpe")
    for change in (
        lambda: kept_pieces(bpe, {5}),
        lambda: with_new_pieces(bpe, ["▁new"]),
        lambda: piece_origins(bpe, MODEL),
    ):
        with pytest.raises(UserError, match="no unigram model"):
            change()
    with pytest.raises(UserError, match="not a SentencePiece model"):
        kept_pieces(b"hello\n" * 9, {5})


@pytest.mark.parametrize("model", [MODEL, BYTE_MODEL], ids=["plain", "bytes"])
def test_origins_are_the_old_cut(model: bytes) -> None:
    new = ["▁banelokitu", "▁sodarx", "▁é漢"]
    origins = piece_origins(model, with_new_pieces(model, new))
    number = len(pieces(model))
    assert origins[:number] == [
        PieceOrigin(piece, (n,), is_new=False) for n, (piece, _, _) in enumerate(pieces(model))
    ]
    for word, origin in zip(new, origins[number:], strict=True):
        assert origin.is_new
        assert origin.text == word
        names = processor(model)
        expected = [names.id_to_piece(n) for n in names.encode(word[1:])]
        assert [names.id_to_piece(n) for n in origin.numbers] == expected


def test_origins_of_a_smaller_model() -> None:
    origins = piece_origins(MODEL, kept_pieces(MODEL, {40, 60}))
    assert {origin.numbers[0] for origin in origins} >= {0, 1, 2, 40, 60}
    assert not any(origin.is_new for origin in origins)
