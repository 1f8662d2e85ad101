"""How far long work is: a bar on a terminal, a line now and then in a log, for all ranks together."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

from deltalm_ds.ranks import Ranks

SECONDS_BETWEEN_LINES = 30.0
"""Between two lines where stderr is no terminal."""
_SECONDS_BETWEEN_MESSAGES = 0.2
_LINE = "{desc}: {percentage:.0f} % of {total_fmt}B, {rate_fmt}, {remaining} left"
_LINE_WITHOUT_TOTAL = "{desc}: {n_fmt}B, {rate_fmt}"

ProgressT = TypeVar("ProgressT", bound="Progress")


class Progress:
    """Progress of some work that all ranks share, shown by rank 0 on stderr; a context manager.

    Args:
        what: the work, a word or two.
        total: how much there is to do, in bytes; None if that is unknown.
        ranks: who does it.
        done: how much was done before.
    """

    def __init__(self, what: str, total: int | None, ranks: Ranks, done: int = 0) -> None:
        self._ranks, self._unsent = ranks, 0
        self._said = self._sent = time.monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=what,
            unit="B",
            unit_scale=True,
            leave=False,
            disable=not (ranks.is_first and self._is_terminal),
        )
        self._what, self._total, self._first, self._done = what, total, done, done
        self._started = time.monotonic()

    def update(self, count: int) -> None:
        """Count `count` bytes more as done on this rank."""
        now = time.monotonic()
        if self._ranks.is_first:
            self._show(count + self._ranks.received_progress(), now)
            return
        self._unsent += count
        if now - self._sent > _SECONDS_BETWEEN_MESSAGES:
            self._send(now)

    def skip(self, count: int) -> None:
        """Count `count` bytes as done before, on rank 0: what is left will not be as fast."""
        self._first, self._done = self._first + count, self._done + count
        if not self._bar.disable:
            self._bar.initial, self._bar.n = self._bar.initial + count, self._bar.n + count

    def remark(self, seconds: float, num_bytes: int) -> str:
        """What is shown beside the bytes, when `num_bytes` were done in `seconds`; nothing here."""
        return ""

    def _send(self, now: float) -> None:
        self._ranks.send_progress(self._unsent)
        self._unsent, self._sent = 0, now

    def _show(self, count: int, now: float) -> None:
        self._done += count
        remark = self.remark(now - self._started, self._done - self._first)
        self._bar.set_postfix_str(remark, refresh=False)
        self._bar.update(count)
        if not self._is_terminal and now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            meter = tqdm.format_meter(
                self._done,
                self._total,
                now - self._started,
                prefix=self._what,
                unit="B",
                unit_scale=True,
                initial=self._first,
                bar_format=_LINE if self._total else _LINE_WITHOUT_TOTAL,
            )
            print(f"{meter}, {remark}" if remark else meter, file=sys.stderr, flush=True)

    def __enter__(self: ProgressT) -> ProgressT:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for all ranks, unless there was an exception."""
        if kind is None:
            if not self._ranks.is_first:
                self._send(time.monotonic())
            self._ranks.barrier(lambda: self.update(0) if self._ranks.is_first else None)
        self._bar.close()
