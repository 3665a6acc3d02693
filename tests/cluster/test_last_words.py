"""A process that ends without a word of its own leaves a sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest

from journeyman.cluster.last_words import SENTENCE

PROGRAM = "import os\nfrom journeyman.cluster.last_words import said_if_killed\nwith said_if_killed():\n    {}"


@pytest.mark.parametrize(
    ("does", "code", "said"),
    [("pass", 0, ""), ("os._exit(1)", 1, SENTENCE), ("os.abort()", -6, SENTENCE), ("raise SystemExit(3)", 3, "")],
)
def test_only_a_process_that_is_ended_from_outside_leaves_the_sentence(does: str, code: int, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(does)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, said)
