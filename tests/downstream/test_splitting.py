"""Sentences are told apart in every script, and joining them gives the paragraph back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltalm_ds.downstream.splitting import join_sentences, split_sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["One sentence.", "And another!", "Really?!", "Yes…", "(So it is.)", "“Good.”", "3 more."],
        ["Mr. J. R. Smith met Dr. Who at No. 5 again.", "The U.S. Army was there.", '"Really?" she asked.'],
        ["Am 3. Oktober kam z.B. Anna.", "Sie ging usw. nach Hause."],
        ["Τι κάνεις;", "Καλά."],
        ["هل أنت بخير؟", "نعم."],
        ["यह घर है।", "वह आया॥", "सच?"],
        ["Ինչպես ես։", "Լավ։"],
        ["Он пришёл в 2020 г. из Москвы.", "Она — нет."],
        ["ประโยค ไม่มี จุด"],
    ],
)
def test_sentences_with_spaces_between(sentences: list[str]) -> None:
    assert [text for text, _ in split_sentences(" ".join(sentences))] == sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["我在北京。", "你呢？", "他说：“好的！！”然后走了。", "真的……吗？！"],
        ["「はい。」と言った。", "「A。」", "「B。」"],
        ["ခုနစ်။", "ရှစ်။"],
    ],
)
def test_sentences_without_spaces_between(sentences: list[str]) -> None:
    assert [text for text, _ in split_sentences("".join(sentences))] == sentences


@given(st.one_of(st.text(), st.text("aB. \t。”」?!…;1\u3000")))
def test_pieces_joined_are_the_paragraph(paragraph: str) -> None:
    sentences = split_sentences(paragraph)
    assert join_sentences([text for text, _ in sentences], sentences) == paragraph
    assert all(text or not number for number, (text, _) in enumerate(sentences))
    assert all(text == text.strip() and not separator.strip() for text, separator in sentences)


def test_spaces_come_and_go_with_the_language() -> None:
    chinese = split_sentences("我来。你呢？  好。\t")
    assert join_sentences(["I come.", "You?", "Good."], chinese, "en") == "I come. You?  Good.\t"
    english = split_sentences(" I come. You?")
    assert join_sentences(["", "我来。", "你呢？"], english, "zh") == " 我来。你呢？"
    assert join_sentences(["", "我来。", "你呢？"], english) == " 我来。 你呢？"
