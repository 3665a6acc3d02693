"""What a child process does so that it never outlives its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def die_with_parent(on: bool, parent: int | None = None) -> None:
    """Sets whether the kernel kills this process when the thread that started it ends; Linux only.

    Args:
        parent: the process that started this one. If it has ended already, which the kernel no longer tells, this
            process ends now.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if on else 0, 0, 0, 0)
    if on and parent is not None and os.getppid() != parent:
        os._exit(1)


def exit_when_input_closes() -> None:
    """Ends this process at once when its standard input, a pipe that the parent holds, closes."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os._exit(0)

    threading.Thread(target=wait, name="parent", daemon=True).start()
