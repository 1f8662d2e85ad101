"""How a target is searched for; part of the command lines that generate text."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deltalm_ds.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Beam search as fairseq's generator does it, or sampling."""

    beam: int = 5
    """Hypotheses kept for each sentence; 1 is greedy. With sampling: samples drawn for each sentence."""
    length_penalty: float = 1.0
    """Exponent of the length that a hypothesis' summed log-probability is divided by; above 1 favours long
    outputs, 0 ranks by the sum alone."""
    max_length_a: float = 0.0
    """An output has at most a · n + b tokens before `</s>`, n the source's tokens with `</s>`: this is a."""
    max_length_b: int = 200
    """And this is b. No output is longer than the model has positions."""
    min_length: int = 1
    """An output has at least so many tokens before `</s>`, unless its greatest length is less."""
    num_best: int = 1
    """Hypotheses returned for each sentence, at most `beam`."""
    no_repeat_ngram: int = 0
    """No sequence of so many tokens occurs twice in an output; 0: anything may."""
    repetition_penalty: float = 1.0
    """The log-probability of a token that the output already has is multiplied by this; above 1 makes
    repetition rarer, 1 changes nothing."""
    sampling: bool = False
    """Draw tokens at random in place of the beam search."""
    temperature: float = 1.0
    """Log-probabilities are divided by this before drawing; below 1 makes likely tokens likelier."""
    top_k: int = 0
    """Draw from the so many likeliest tokens; 0: from all."""
    top_p: float = 1.0
    """Draw from the fewest likeliest tokens that have this probability together; 1: from all."""
    seed: int = 1
    """Each draw follows from this, the sentence's number and the step, whatever the batch."""

    def __post_init__(self) -> None:
        _at_least(1, beam=self.beam, num_best=self.num_best)
        _at_least(
            0,
            max_length_b=self.max_length_b,
            min_length=self.min_length,
            no_repeat_ngram=self.no_repeat_ngram,
            top_k=self.top_k,
        )
        _finite(0, max_length_a=self.max_length_a)
        _finite(-math.inf, length_penalty=self.length_penalty)
        _above_zero(repetition_penalty=self.repetition_penalty, temperature=self.temperature)
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p must lie in (0, 1], not {self.top_p}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed must lie in [0, 2^32), not {self.seed}")
        if self.num_best > self.beam:
            raise UserError(f"num_best {self.num_best} is more than the beam of {self.beam}; widen the beam")
        if self.max_length_a == 0 and self.max_length_b < max(1, self.min_length):
            raise UserError(
                f"max_length_b {self.max_length_b} with max_length_a 0 leaves no output of min_length "
                f"{self.min_length} tokens; raise max_length_b"
            )
        drawing = self.temperature != 1 or self.top_k != 0 or self.top_p != 1
        if drawing and not self.sampling:
            raise UserError("temperature, top_k and top_p change sampling alone; add sampling, or drop them")


def _at_least(lowest: int, **values: int) -> None:
    for name, value in values.items():
        if value < lowest:
            raise UserError(f"{name} must be at least {lowest}, not {value}")


def _finite(lowest: float, **values: float) -> None:
    for name, value in values.items():
        if not math.isfinite(value) or value < lowest:
            raise UserError(f"{name} must be a number{' from 0 on' if lowest == 0 else ''}, not {value}")


def _above_zero(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{name} must be a number above 0, not {value}")
