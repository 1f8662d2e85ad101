"""What every command shares: options from dataclasses, one-line errors, exit codes."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from deltalm_ds.errors import UserError

SettingsT = TypeVar("SettingsT")

EXIT_USER_ERROR = 2

# No space, no right, no folder: not ours to mend, and a traceback would tell no more.
_MISTAKES_WITH_FILES = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
)

_RANK_VARIABLES = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
_SECONDS_FOR_RANK_0 = 4.0

_BOX = re.compile(r"[╭╮╰╯│─]+")


def parse(
    settings_type: Callable[..., SettingsT],
    command: str,
    arguments: Sequence[str] | None = None,
    default: SettingsT | None = None,
) -> SettingsT:
    """Read `settings_type` (a dataclass) from the command line; `default` has other defaults than its own.

    Options are the field names with hyphens (underscores are accepted too), help is the docstring below
    each field. A wrong option ends the process with one line on stderr and exit code 2.
    """
    messages = io.StringIO()
    given: Any = tyro.MISSING_NONPROP if default is None else default
    try:
        with contextlib.redirect_stderr(messages):
            return tyro.cli(
                settings_type,
                prog=f"python -m deltalm_ds.{command}",
                args=arguments,
                default=given,
                config=(
                    tyro.conf.OmitArgPrefixes,
                    tyro.conf.FlagCreatePairsOff,
                    tyro.conf.HelptextFromCommentsOff,
                ),
            )
    except SystemExit as stop:
        if stop.code:
            _print_error(command, _one_line(messages.getvalue()))
        raise


def run(command: str, main: Callable[[], int | None]) -> None:
    """Run `main` and end the process: 0 done, 2 after a UserError, else what `main` returns."""
    try:
        code = main() or 0
    except UserError as error:
        _print_error(command, str(error))
        code = EXIT_USER_ERROR
    except KeyboardInterrupt:
        _print_error(command, "interrupted")
        code = 130
    except BrokenPipeError:  # the reader of our output, `head` for example, has left
        forget_reader()
        code = 0
    except OSError as error:
        if error.errno not in _MISTAKES_WITH_FILES:
            raise
        where = error.filename or "writing"
        _print_error(command, f"{where}: {error.strerror}; free space or name another place")
        code = EXIT_USER_ERROR
    sys.exit(code)


def forget_reader() -> None:
    """After a BrokenPipeError: let what is still to be written to stdout go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_error(command: str, message: str) -> None:
    """Rank 0 speaks first; where all ranks find the same mistake, the launcher ends the others meanwhile."""
    if next((os.environ[name] for name in _RANK_VARIABLES if name in os.environ), "0") != "0":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # training's handler would keep this process
        time.sleep(_SECONDS_FOR_RANK_0)
    print(f"deltalm-ds {command}: error: {message}", file=sys.stderr, flush=True)


def _one_line(box: str) -> str:
    """The text of tyro's framed message, without the frame and its title, on one line."""
    lines = [_BOX.sub(" ", line).strip() for line in box.splitlines() if not line.startswith("╭")]
    return " ".join(line for line in lines if line) or "wrong options; see --help"
