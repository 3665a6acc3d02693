"""How often the sealed rows of a folder have judged an adapter.

Whoever looks at the same rows again and again, and deploys what passes at last, passes by luck in the end. So each
further look is judged at half the error of the one before: over any number of looks the chance of a wrong deployment
stays below twice the first one's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from journeyman.artifacts import hash_of, write_atomic

LOOKS = ".looks"


def count_look(folder: Path, sealed_sha256: str, judged: Mapping[str, object]) -> int:
    """The number of this look, from 1. The same adapters under the same rules are the same look.

    Args:
        judged: what makes a look another one: the adapters' hashes and the rules.
    """
    path, here = folder / LOOKS, {"sealed": sealed_sha256, "judged": hash_of(dict(judged))}
    before = [json.loads(line) for line in path.read_text().splitlines() if line] if path.is_file() else []
    mine = [look["judged"] for look in before if look["sealed"] == sealed_sha256]
    if here["judged"] in mine:
        return mine.index(here["judged"]) + 1
    write_atomic(path, "".join(json.dumps(look) + "\n" for look in [*before, here]).encode())
    return len(mine) + 1


def confidence_of_look(confidence: float, look: int) -> float:
    """The confidence of the intervals of the n-th look at the same rows."""
    return float(1 - (1 - confidence) / 2 ** (look - 1))
