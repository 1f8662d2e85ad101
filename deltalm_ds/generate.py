"""Text to a model's outputs: `python -m deltalm_ds.generate MODEL < in > out`."""

from __future__ import annotations

import sys

from deltalm_ds.commands import parse, run
from deltalm_ds.decoding.options import GenerateSettings


def main() -> int:
    """The command."""
    settings = parse(GenerateSettings, "generate")
    from deltalm_ds.decoding.run import generate  # torch takes a second to import

    try:
        generate(settings, say)
    except KeyboardInterrupt:
        if settings.output is not None:
            say(f"interrupted; what is done is kept in {settings.output}.partial, --resume goes on with it")
            return 130
        raise
    return 0


def say(line: str) -> None:
    """Tell people something; stdout is for outputs."""
    print(f"deltalm-ds generate: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run("generate", main)
