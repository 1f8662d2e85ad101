"""What the losses decide, and whether by more than chance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from deltalm_ds.probing.losses import Reading

_NUM_RESAMPLES = 10_000
_CONFIDENCE = 0.99
_FEWEST_SAMPLES = 5  # fewer cannot show how much they vary


@dataclass(frozen=True)
class Verdict:
    """The answer to one question, all others answered as they fit best."""

    question: str
    """What is asked."""
    answer: str
    """The value with the lowest loss."""
    runner_up: str
    """The one with the second lowest."""
    margin: float
    """By how much its loss is higher, in nats per label."""
    interval: tuple[float, float]
    """Where 99% of the margins lie when the samples are drawn again."""
    is_decided: bool
    """Whether all of the interval is above 0."""

    def __str__(self) -> str:
        low, high = self.interval
        numbers = f"{self.margin:.4f} nats a label lower than {self.runner_up} (99%: {low:.4f} to {high:.4f})"
        if self.is_decided:
            return f"{self.question}: {self.answer}, {numbers}"
        return f"{self.question}: undecided; {self.answer} is {numbers}"


def verdicts(readings: Iterable[Reading], seed: int) -> list[Verdict]:
    """What the readings say about each question that has several answers.

    Sentinels and order are judged by the loss of all labels within the form that fits best; the form by the
    loss of text, for the labels of the two forms differ in the rest. Each answer is compared with its
    neighbours, readings that differ from the best in that answer alone, by a bootstrap over the samples,
    which are the same for both.
    """
    readings = list(readings)
    forms = list(dict.fromkeys(reading.form for reading in readings))
    best_of_form = [
        min((reading for reading in readings if reading.form == form), key=lambda reading: reading.loss)
        for form in forms
    ]
    best_of_form.sort(key=lambda reading: reading.text_loss)
    best = best_of_form[0]

    def neighbours(name: str) -> list[Reading]:
        others = {"first_sentinel_id", "order", "form"} - {name}
        same = [r for r in readings if all(getattr(r, other) == getattr(best, other) for other in others)]
        return sorted(same, key=lambda reading: reading.loss)

    questions: list[tuple[str, Sequence[Reading], Callable[[Reading], str], int]] = [
        (
            "first sentinel",
            neighbours("first_sentinel_id"),
            lambda reading: str(reading.first_sentinel_id),
            0,
        ),
        ("order of feed-forward layers", neighbours("order"), lambda reading: reading.order, 0),
        ("form of corruption", best_of_form, lambda reading: reading.form, 1),
    ]
    return [
        _verdict(question, found[0], found[1], name, column, seed)
        for question, found, name, column in questions
        if len(found) > 1
    ]


def _verdict(
    question: str,
    best: Reading,
    second: Reading,
    name: Callable[[Reading], str],
    column: int,
    seed: int,
) -> Verdict:
    def margins(weights: np.ndarray) -> np.ndarray:
        """By samples' weights [resamples, samples]."""
        means = [(weights @ r.sums[:, column]) / (weights @ r.counts[:, column]) for r in (second, best)]
        return means[0] - means[1]

    num_samples = len(best.sums)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(num_samples, np.full(num_samples, 1 / num_samples), size=_NUM_RESAMPLES)
    edge = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(margins(drawn.astype(np.float64)), [edge, 1 - edge]).tolist()
    return Verdict(
        question=question,
        answer=name(best),
        runner_up=name(second),
        margin=float(margins(np.ones((1, num_samples)))[0]),
        interval=(low, high),
        is_decided=low > 0 and num_samples >= _FEWEST_SAMPLES,
    )
