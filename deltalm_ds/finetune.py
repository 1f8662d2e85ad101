"""Fine-tune: `deepspeed deltalm_ds/finetune.py --task T --data DATA --from MODEL --deepspeed_config JSON`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and __package__ is None:
    # Run as a file, Python heads the import path with this folder, where modules may be named like others'.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from deltalm_ds.commands import parse, run
from deltalm_ds.training.stop_signals import EXIT_STOPPED, caught_signals
from deltalm_ds.training.tuning_settings import FinetuneSettings

NEXT_STEPS = """
Use it:    python -m deltalm_ds.generate {model} < in > out
Curves:    tensorboard --logdir {output}"""


def main() -> int:
    """Parse, build, train; returns the exit code."""
    caught_signals()  # before the seconds of importing: a run that is asked to stop now stops at its start
    settings = parse(FinetuneSettings, "finetune")
    from deltalm_ds.training.finetuning import finetuning  # DeepSpeed takes seconds to import: not for --help

    with finetuning(settings) as trainer:
        trainer.train()
    if trainer.was_stopped:
        return EXIT_STOPPED
    if trainer.process.is_first and trainer.has_model:
        print(NEXT_STEPS.format(model=trainer.model_folder, output=trainer.output), file=sys.stderr)
    return 0


if __name__ == "__main__":
    run("finetune", main)
