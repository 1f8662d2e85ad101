"""Cut a model's vocabulary to given text: `python -m deltalm_ds.trim MODEL TARGET --text FILE`."""

from __future__ import annotations

from deltalm_ds.commands import parse, run
from deltalm_ds.trimming.run import TrimSettings, trim


def main() -> None:
    """The command."""
    trim(parse(TrimSettings, "trim"), print)


if __name__ == "__main__":
    run("trim", main)
