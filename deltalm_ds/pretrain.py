"""Pre-train DeltaLM: `deepspeed deltalm_ds/pretrain.py --deepspeed_config ds_configs/zero2.json`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and __package__ is None:
    # Run as a file, Python heads the import path with this folder, where modules may be named like others'.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from deltalm_ds.commands import parse, run
from deltalm_ds.training.settings import PretrainSettings


def main() -> None:
    """Parse, build, train."""
    settings = parse(PretrainSettings, "pretrain")
    from deltalm_ds.training.build import pretraining  # DeepSpeed takes seconds to import: not for --help

    with pretraining(settings) as trainer:
        trainer.train()


if __name__ == "__main__":
    run("pretrain", main)
