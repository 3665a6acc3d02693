"""Splits groups of rows into train, val and test: stratified by role, seeded, no group in two splits."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

from journeyman.records import Example

SplitName = Literal["train", "val", "test"]


def split_rows(
    rows: Sequence[Example], val_share: float, test_share: float, seed: int
) -> Mapping[SplitName, list[Example]]:
    """Assigns each group as a whole, whatever roles it holds.

    A role's test rows are filled first, then its validation rows, each to the nearest whole number of its
    share; a role too small for a share of one row has none there, which the decision then says.
    """
    groups: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    assigned: dict[str, SplitName] = {}
    shares: Sequence[tuple[SplitName, float]] = [("test", test_share), ("val", val_share)]
    for role in sorted({row.role for row in rows}):
        sizes = {name: sum(row.role == role for row in group) for name, group in groups.items()}
        mine = [name for name, size in sizes.items() if size]
        random.Random(f"{seed}/{role}").shuffle(mine)
        for split, share in shares:
            room = round(sum(sizes.values()) * share) - sum(sizes[name] for name in mine if assigned.get(name) == split)
            for name in mine:
                # A group that is too large for what is missing stays in train, whole.
                if name not in assigned and sizes[name] <= room:
                    assigned[name] = split
                    room -= sizes[name]
    splits: dict[SplitName, list[Example]] = {"train": [], "val": [], "test": []}
    for row in rows:
        splits[assigned.get(row.group, "train")].append(row)
    return splits


def leaked_groups(splits: Mapping[SplitName, Sequence[Example]]) -> set[str]:
    """Groups that lie in more than one split; empty when the split is sound."""
    seen: dict[str, SplitName] = {}
    leaked = set()
    for name, rows in splits.items():
        for row in rows:
            if seen.setdefault(row.group, name) != name:
                leaked.add(row.group)
    return leaked
