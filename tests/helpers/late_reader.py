"""Stands in for training.trial_child: reads what it is given after a while, and says how long it was."""

from __future__ import annotations

import json
import sys
import time

if __name__ == "__main__":
    time.sleep(0.7)
    size = len(sys.stdin.buffer.read())
    print(json.dumps({"groups": [[float(size)]], "validation": [], "updates": [], "warm_ups": [0], "measured_s": 0.0}))
