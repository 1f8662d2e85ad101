"""How released weights are to be read: `python -m deltalm_ds.probe WEIGHTS --text FILE`."""

from __future__ import annotations

from deltalm_ds.commands import parse, run
from deltalm_ds.probing.run import ProbeSettings, probe


def main() -> None:
    """The command."""
    probe(parse(ProbeSettings, "probe"), print)


if __name__ == "__main__":
    run("probe", main)
