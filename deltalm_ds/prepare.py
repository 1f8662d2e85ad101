"""Raw text to a prepared folder: `python -m deltalm_ds.prepare INPUT... --output DIR`."""

from __future__ import annotations

import sys
from functools import partial

from deltalm_ds.commands import forget_reader, parse, run
from deltalm_ds.data.manifest import MANIFEST_NAME
from deltalm_ds.errors import UserError
from deltalm_ds.preparing.run import prepare
from deltalm_ds.preparing.settings import PrepareSettings
from deltalm_ds.preparing.work import kept


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
            "the reader of this command's output left before the folder was finished; "
            + kept(settings.output)
        ) from error
    except OSError as error:  # no space, no permission: the user's to mend
        raise UserError(
            f"{error.filename or settings.output}: {error.strerror or error}; {kept(settings.output)}"
        ) from error
    except KeyboardInterrupt:
        print(f"deltalm-ds prepare: interrupted; {kept(settings.output)}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    run("prepare", main)
