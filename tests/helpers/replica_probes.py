"""What tests look up inside a replica of the engine. Workers import this module, so it imports hardly anything."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


def pids(replica: Any) -> tuple[int, int]:
    """The process of the replica, and that of its engine."""
    return os.getpid(), replica._engine.pid


def base_of(replica: Any) -> Path:
    """The file that the engine has loaded."""
    return replica._engine.settings.base  # type: ignore[no-any-return]


def pulse_after(replica: Any) -> Any:
    """What the engine does when the replica waits for no answer any more."""
    while replica._heard:
        time.sleep(0.01)
    time.sleep(0.5)
    return replica._engine.pulse()
