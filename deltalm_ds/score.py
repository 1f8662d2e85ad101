"""Score outputs against references: `python -m deltalm_ds.score HYPOTHESES --references FILE...`."""

from __future__ import annotations

import json

from tqdm import tqdm

from deltalm_ds.commands import parse, run
from deltalm_ds.files import write_text_atomically
from deltalm_ds.scoring.directions import directions_of
from deltalm_ds.scoring.evaluation import evaluate, read_identifier
from deltalm_ds.scoring.report import as_json, describe
from deltalm_ds.scoring.settings import ScoreSettings


def main() -> None:
    """The command."""
    settings = parse(ScoreSettings, "score")
    directions = directions_of(settings)
    identifier = read_identifier(settings.language_samples)
    reports = [
        evaluate(direction, settings, identifier)
        for direction in tqdm(directions, desc="scoring", leave=False, disable=None)
    ]
    content = json.dumps(as_json(reports, settings), ensure_ascii=False, indent=2)
    if settings.prints_json:
        print(content)
        return
    if settings.json is not None:
        write_text_atomically(settings.json, f"{content}\n")
    print(describe(reports, settings))


if __name__ == "__main__":
    run("score", main)
