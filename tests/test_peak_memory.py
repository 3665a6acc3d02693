"""The peak of a process is that of its own program, and begins again where it is told to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system tells no peak")
_PARENT = """
import subprocess, sys
held = bytearray(700 << 20)
held[::4096] = b"1" * len(held[::4096])
del held
sys.stdout.write(subprocess.run([sys.executable, "-c", sys.argv[1]], capture_output=True, check=True).stdout.decode())
"""


def _said(code: str) -> list[int]:
    """What a process says that a parent with a peak of 700 MiB has started."""
    run = [sys.executable, "-c", _PARENT, code]
    return [int(one) for one in subprocess.run(run, capture_output=True, check=True).stdout.split()]


def test_a_child_s_peak_is_not_its_parent_s() -> None:
    for module in ("journeyman.peak_memory", "journeyman.training.hardware"):
        (peak,) = _said(f"from {module} import peak_resident_bytes as peak; print(peak())")
        (resident,) = _said(f"import {module}, psutil; print(psutil.Process().memory_info().rss)")
        assert 0 < peak < resident + (150 << 20), module


def test_it_begins_again() -> None:
    before, after = _said(
        "from journeyman.peak_memory import *\n"
        "held = bytearray(200 << 20); held[::4096] = b'1' * len(held[::4096]); del held\n"
        "print(peak_resident_bytes()); forget_peak(); print(peak_resident_bytes())"
    )
    assert before > 200 << 20 > after > 0
