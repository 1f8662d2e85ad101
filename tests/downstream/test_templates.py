"""Templates name fields and nothing else, and make one text for every one of several."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltalm_ds.downstream.templates import Template, one_line
from deltalm_ds.errors import UserError


@pytest.mark.parametrize(
    "text", ["{a", "a}", "{}", "no field", "", "{a!r}", "{a:>9}", "{a}\n{b}", "{{a}}", "{a}\u2028"]
)
def test_what_is_no_template_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError, match="template") as caught:
        Template(text)
    assert len(str(caught.value).splitlines()) == 1


def test_fields_are_filled_in() -> None:
    template = Template("{answer} </s> {context} {{{answer}}}")
    assert template.fields == ("answer", "context")
    assert template.texts({"answer": "4", "context": "2 + {2}"}) == ("4 </s> 2 + {2} {4}",)


def test_several_texts_of_a_field_make_several() -> None:
    fields = {"text": ("one", "two"), "other": ("x", "y"), "category": "c", "none": ()}
    assert Template("{text}").texts(fields) == ("one", "two")
    assert Template("{category}: {text}").texts(fields) == ("c: one", "c: two")
    assert Template("{category}{none}").texts(fields) == ()
    with pytest.raises(ValueError, match="'text' and 'other'"):
        Template("{text}{other}").texts(fields)


def test_a_missing_field_is_told() -> None:
    for text in ("{a}", "{a} {b}"):
        with pytest.raises(KeyError, match="a"):
            Template(text).texts({"b": "x"})


@given(st.text(), st.text(), st.text())
def test_only_fields_are_replaced(first: str, second: str, between: str) -> None:
    between = one_line(between)
    template = Template("{a}" + between.replace("{", "{{").replace("}", "}}") + "{b}")
    assert template.texts({"a": first, "b": second}) == (first + between + second,)


@given(st.text())
def test_a_text_on_one_line_is_one_line_for_every_reader(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert one_line(line) == line
    assert "".join(line.split()) == "".join(text.split())
