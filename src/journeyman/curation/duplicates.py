"""Tasks that repeat: word trigrams, MinHash candidates (rensa), verified with the exact Jaccard similarity."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from rensa import RMinHash, RMinHashLSH

_PERMUTATIONS, _BANDS = 128, 32


def trigrams(text: str) -> frozenset[str]:
    """Lower-case word trigrams; texts of fewer than three words count as one."""
    words = re.findall(r"\w+", text.lower())
    if len(words) < 3:
        return frozenset([" ".join(words)])
    return frozenset(" ".join(words[i : i + 3]) for i in range(len(words) - 2))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    return len(left & right) / len(left | right) if left | right else 1.0


def near_pairs(texts: Sequence[str], threshold: float) -> list[tuple[int, int]]:
    """Pairs (earlier, later) of texts whose trigram similarity is at least `threshold`."""
    sets = [trigrams(text) for text in texts]
    index = RMinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS, num_bands=_BANDS)
    pairs = []
    for number, grams in enumerate(sets):
        sketch = RMinHash(num_perm=_PERMUTATIONS, seed=0)
        sketch.update(sorted(grams))
        for candidate in sorted(index.query(sketch)):
            if jaccard(sets[candidate], grams) >= threshold:
                pairs.append((candidate, number))
        index.insert(number, sketch)
    return pairs


def clusters(count: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """For each of `count` items the smallest item that it is linked with, directly or through others."""
    root = list(range(count))

    def find(item: int) -> int:
        while root[item] != item:
            root[item] = root[root[item]]
            item = root[item]
        return item

    for left, right in pairs:
        a, b = find(left), find(right)
        root[max(a, b)] = min(a, b)
    return [find(item) for item in range(count)]


def members(roots: Sequence[int]) -> dict[int, list[int]]:
    """root → its items, in order."""
    groups: dict[int, list[int]] = defaultdict(list)
    for item, root in enumerate(roots):
        groups[root].append(item)
    return groups
