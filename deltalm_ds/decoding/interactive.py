"""A terminal: each line is answered at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from deltalm_ds.decoding.forms import head
from deltalm_ds.decoding.lines import Chunk
from deltalm_ds.decoding.options import OutputFormat
from deltalm_ds.decoding.remarks import Counts
from deltalm_ds.decoding.work import Result


def answer_lines(
    answer: Callable[[Chunk], Result], prompt: str, form: OutputFormat, say: Callable[[str], None]
) -> None:
    """Read lines from stdin and print their outputs until the end of the file, Ctrl-D.

    Prompt, seconds and warnings go to stderr.
    """
    say("one line of text for each output; Ctrl-D ends")
    sys.stdout.write(head(form))
    number = 0
    while True:
        print(f"{prompt}> ", end="", file=sys.stderr, flush=True)
        content = sys.stdin.buffer.readline()
        if not content:
            print(file=sys.stderr)
            return
        try:
            text = content.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            say("that line is not UTF-8: set the terminal to it")
            continue
        started = time.perf_counter()
        result = answer(Chunk.of_text(number, text))
        sys.stdout.write(result.text)
        sys.stdout.flush()
        say(f"{time.perf_counter() - started:.2f} s" + _remarks(result.counts))
        number += 1


def _remarks(counts: Counts) -> str:
    return "".join(f"; {kind.replace('_', ' ')}" for kind in counts.found)
