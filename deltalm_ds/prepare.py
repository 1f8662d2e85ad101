"""Raw text to a prepared folder: `python -m deltalm_ds.prepare INPUT... --output DIR`."""

from __future__ import annotations

import sys
from functools import partial

from deltalm_ds.commands import forget_reader, parse, run
from deltalm_ds.data.manifest import MANIFEST_NAME
from deltalm_ds.errors import UserError
from deltalm_ds.preparing.run import prepare, work_folder
from deltalm_ds.preparing.settings import PrepareSettings


def main() -> int:
    """The command."""
    settings = parse(PrepareSettings, "prepare")
    try:
        prepare(settings, partial(print, flush=True))
    except BrokenPipeError as error:  # of what is said, and not of what is written
        if (settings.output / MANIFEST_NAME).is_file():
            raise
        forget_reader()
        raise UserError(
            f"the reader of this command's output left before the folder was finished; {_kept(settings)}"
        ) from error
    except OSError as error:  # no space, no permission: the user's to mend
        raise UserError(
            f"{error.filename or settings.output}: {error.strerror or error}; {_kept(settings)}"
        ) from error
    except KeyboardInterrupt:
        print(f"deltalm-ds prepare: interrupted; {_kept(settings)}", file=sys.stderr)
        return 130
    return 0


def _kept(settings: PrepareSettings) -> str:
    """What is left of an unfinished run, for its error message."""
    work = work_folder(settings.output)
    if work.exists():
        return f"what is done is kept in {work}: the same command goes on from there"
    return "nothing was written"


if __name__ == "__main__":
    run("prepare", main)
