"""`python -m deltalm_ds.demo DIRECTORY`: write the embedded sample as text files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from deltalm_ds.commands import parse, run
from deltalm_ds.demo import write_sample


@dataclass(kw_only=True)
class DemoSettings:
    """Write the embedded sample: text in ten languages, in the forms that deltalm_ds.prepare reads."""

    directory: tyro.conf.Positional[Path]
    """Folder to write mono/ and pairs/ into; it is made if absent."""
    seed: int = 0
    """Another seed gives other stories."""


def main() -> None:
    """Write the sample and say what to do with it."""
    settings = parse(DemoSettings, "demo")
    write_sample(settings.directory, settings.seed)
    print(f"Wrote {settings.directory / 'mono'} and {settings.directory / 'pairs'}. Next:")
    print(f"  python -m deltalm_ds.prepare {settings.directory}/mono {settings.directory}/pairs --output DIR")


if __name__ == "__main__":
    run("demo", main)
