"""Pre-train DeltaLM: `deepspeed deltalm_ds/pretrain.py --deepspeed_config ds_configs/zero2.json`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__" and __package__ is None:
    # Run as a file, Python heads the import path with this folder, where modules may be named like others'.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from deltalm_ds.commands import parse, run
from deltalm_ds.training.settings import SAMPLE_RUN, PretrainSettings
from deltalm_ds.training.stop_signals import EXIT_STOPPED, caught_signals

NEXT_STEPS = """
That was the sample. Its curves:    tensorboard --logdir {output}
With your own text (fr.txt, de.txt, … a language each; train.en and train.fr line by line for pairs):
    python -m deltalm_ds.prepare TEXT... --output my-data
    deepspeed deltalm_ds/pretrain.py --data my-data --preset small --deepspeed_config ds_configs/zero2.json
To start from XLM-R, InfoXLM or a released DeltaLM, add --from PATH; README.md says how to prepare for it."""


def main() -> int:
    """Parse, build, train; returns the exit code."""
    caught_signals()  # before the seconds of importing: a run that is asked to stop now stops at its start
    settings = parse(PretrainSettings, "pretrain")
    if settings.is_sample_run:
        settings = parse(PretrainSettings, "pretrain", default=SAMPLE_RUN)
    if settings.plan_data:
        from deltalm_ds.training.data_plan import data_plan

        if os.environ.get("RANK", "0") == "0":
            print(data_plan(settings))
        return 0
    from deltalm_ds.training.build import pretraining  # DeepSpeed takes seconds to import: not for --help

    with pretraining(settings) as trainer:
        trainer.train()
    if trainer.was_stopped:
        return EXIT_STOPPED
    if settings.data is None and trainer.process.is_first:
        print(NEXT_STEPS.format(output=trainer.output), file=sys.stderr)
    return 0


if __name__ == "__main__":
    run("pretrain", main)
