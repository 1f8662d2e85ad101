import pytest

from deltalm_ds.decoding.settings import SearchSettings
from deltalm_ds.errors import UserError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beam": 0}, "beam must be at least 1"),
        ({"num_best": 0}, "num_best must be at least 1"),
        ({"beam": 2, "num_best": 3}, "num_best 3 is more than the beam of 2"),
        ({"min_length": -1}, "min_length must be at least 0"),
        ({"max_length_b": -1}, "max_length_b must be at least 0"),
        ({"max_length_a": -0.5}, "max_length_a must be a number from 0 on"),
        ({"max_length_b": 3, "min_length": 4}, "no output of min_length 4"),
        ({"max_length_b": 0}, "max_length_b 0"),
        ({"length_penalty": float("nan")}, "length_penalty must be a number"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram must be at least 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be a number above 0"),
        ({"sampling": True, "temperature": 0.0}, "temperature must be a number above 0"),
        ({"sampling": True, "top_k": -1}, "top_k must be at least 0"),
        ({"sampling": True, "top_p": 0.0}, "top_p must lie in"),
        ({"sampling": True, "top_p": 1.1}, "top_p must lie in"),
        ({"top_p": 0.9}, "add sampling"),
        ({"temperature": 0.9}, "add sampling"),
        ({"seed": 2**32}, "seed must lie in"),
    ],
)
def test_impossible_values(values, message):
    with pytest.raises(UserError, match=message):
        SearchSettings(**values)


def test_possible_values():
    SearchSettings()
    SearchSettings(max_length_a=1.5, max_length_b=0, min_length=0, length_penalty=-1.0)
    SearchSettings(sampling=True, temperature=0.5, top_k=3, top_p=0.5)
