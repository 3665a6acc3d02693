"""A small process that says one sentence if this process ends without a word.

Ray ends a process that is connected to it, without an exception, when the Ray of its own machine is killed or its head
comes back as another cluster. The kernel then closes the pipe to this child, which has not been told that all is well.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_WELL = b"well"
SENTENCE = (
    "error: journeyman ended while it was connected to the Ray cluster: Ray was stopped or restarted there or on this "
    "machine, or the process was killed. Look at: ray status; then run it again: it resumes\n"
)


@contextmanager
def said_if_killed() -> Iterator[None]:
    """While this context lasts, the child waits."""
    command = [sys.executable, "-I", "-S", __file__]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    assert child.stdin is not None
    try:
        yield
    finally:
        with suppress(BrokenPipeError):
            child.stdin.write(_WELL)
            child.stdin.close()
        child.wait()


def _wait() -> None:
    heard = b""
    while part := os.read(0, len(_WELL)):
        heard += part
    if heard != _WELL:
        os.write(2, SENTENCE.encode())


if __name__ == "__main__":
    _wait()
