"""Stands in for training.trial_child: ends as JOURNEYMAN_TEST_ENDING says, by an exit code or a signal (negative)."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.stdin.buffer.read()
    ending = int(os.environ["JOURNEYMAN_TEST_ENDING"])
    if ending < 0:
        os.kill(os.getpid(), -ending)
    sys.exit(ending)
