"""Draw a run's losses from its metrics.jsonl: `python docs/draw_curves.py RUN PICTURE.svg --title TEXT`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import tyro

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from deltalm_ds.training.monitor import read_metrics

OBJECTIVES = {
    "span_corruption": ("span corruption", "#2563a8"),
    "translation_span_corruption": ("translation span corruption", "#b4531f"),
}


@dataclass(kw_only=True)
class CurveSettings:
    """Losses of a run as a picture."""

    run: tyro.conf.Positional[Path]
    """The run's output folder."""
    picture: tyro.conf.Positional[Path]
    """The file to write, .svg or .png."""
    title: str = ""
    """Put above the picture."""


def draw(settings: CurveSettings) -> None:
    """Training on the left; on the right text tokens of validation, the wrong source and the unigram line."""
    records = read_metrics(settings.run)
    training = [record for record in records if record["kind"] == "train"]
    validation = [record for record in records if record["kind"] == "validation"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), sharex=True)
    for objective, (name, color) in OBJECTIVES.items():
        points = [(r["step"], r[f"nll/{objective}"]) for r in training if f"nll/{objective}" in r]
        left.plot(*zip(*points, strict=True), color=color, linewidth=1, label=name)
        steps = [record["step"] for record in validation]
        for key, style, words in (
            ("text", "-", "true source"),
            ("text_with_other_source", "--", "another sample's source"),
            ("text_with_same_language", "-.", "another's, same language"),
            ("unigram_entropy", ":", "unigram entropy"),
        ):
            values = [record[f"{key}/{objective}"] for record in validation]
            right.plot(steps, values, style, color=color, linewidth=1.5, label=f"{name}: {words}")
    left.set_title("training, all target tokens")
    right.set_title("validation, tokens of text only")
    for axes in (left, right):
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("nats a token")
        axes.grid(alpha=0.25)
        axes.legend(fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.15), frameon=False)
    figure.suptitle(settings.title)
    figure.tight_layout()
    figure.savefig(settings.picture, metadata={"Date": None} if settings.picture.suffix == ".svg" else None)


if __name__ == "__main__":
    draw(tyro.cli(CurveSettings))
