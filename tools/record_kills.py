"""Kills a recorder many times while clients read answers, and proves that nothing of what they got is missing.

python tools/record_kills.py 1000 OUT.json
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from record_killing import killed


def main(kills: int, out: str | None = None) -> int:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = {"kills": kills, **killed(Path(folder), kills, seed=int(time.time()))}
    found["seconds"] = round(time.monotonic() - begun, 1)
    text = json.dumps(found, indent=2)
    print(text)
    if out:
        Path(out).write_text(text + "\n")
    return int(bool(found["received_but_not_in_a_row"] or found["difference"] or found["open"]))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:3]))
