"""How often the sealed rows of a folder have judged an adapter.

Whoever looks at the same rows again and again, and deploys what passes at last, passes by luck in the end. So each
further look is judged at half the error of the one before: over any number of looks the chance of a wrong deployment
stays below twice the first one's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from journeyman.artifacts import hash_of

LOOKS = ".looks"


def count_look(folder: Path, sealed_sha256: str, judged: Mapping[str, object]) -> int:
    """The number of this look, from 1. What is judged alike in all is the same look, and is not counted twice.

    Args:
        judged: what makes a look another one: the adapters' hashes, the rules, the settings, the checks of one's own,
            and every verdict, so that whatever else may change one counts as well.
    """
    path, here = folder / LOOKS, {"sealed": sealed_sha256, "judged": hash_of(dict(judged))}
    text = path.read_text(errors="replace") if path.is_file() else ""
    mine = [judged for judged in (_judged(line, sealed_sha256) for line in text.splitlines() if line) if judged]
    if here["judged"] in mine:
        return mine.index(here["judged"]) + 1
    with path.open("a") as file:
        file.write("\n" * (not text.endswith("\n") and bool(text)) + json.dumps(here) + "\n")
    return len(mine) + 1


def _judged(line: str, sealed_sha256: str) -> str | None:
    """What a look at these rows judged; None for one at others. A damaged line was a look all the same."""
    try:
        look = json.loads(line)
        return str(look["judged"]) if look["sealed"] == sealed_sha256 else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return "damaged"


def confidence_of_look(confidence: float, look: int) -> float:
    """The confidence of the intervals of the n-th look at the same rows."""
    return float(1 - (1 - confidence) / 2 ** (look - 1))
