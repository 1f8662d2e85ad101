"""The signals that ask a run to stop, caught from its first moment on.

SLURM sends them before the time limit, before preemption and for `scancel --signal`. A Python handler waits
until the main thread leaves the collective that it is in; so the signals are read from a socket, by a thread
(`signal.set_wakeup_fd`).
"""

from __future__ import annotations

import signal
import socket

EXIT_STOPPED = 85
"""Exit code of a run that has saved and can go on."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

_sockets: list[socket.socket] = []


def caught_signals() -> socket.socket:
    """The socket to which each caught signal comes as one byte, its number.

    The first call, in the main thread, begins to catch; until somebody reads, the bytes wait.
    """
    if not _sockets:
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        reader.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: None)
        _sockets.extend((reader, writer))
    return _sockets[0]
