"""The arithmetic of splits on arrays, against the plain one on lists and sets."""

from __future__ import annotations

import random

import numpy as np

from journeyman.curation.split import leaked_groups, random_split_leak, split_rows


def leak_of_sets(tasks: list[int], val_share: float, test_share: float) -> tuple[float, int, int]:
    trained = int(len(tasks) * (1 - val_share - test_share) + 1e-9)
    tests = len(tasks) - trained - int(len(tasks) * val_share + 1e-9)
    leaks = []
    for seed in range(100 if len(tasks) <= 1_000 else 3):
        order = list(tasks)
        random.Random(seed).shuffle(order)
        train = set(order[:trained])
        leaks.append(sum(task in train for task in order[len(order) - tests :]))
    return sum(leaks) / len(leaks), max(leaks), tests


def test_random_splits_leak_as_counted_with_sets() -> None:
    random_ = np.random.default_rng(0)
    for rows, kind in ((0, np.int32), (1, np.int64), (7, np.int32), (200, np.int64), (1500, np.int32)):
        tasks = random_.integers(0, rows // 2 + 1, rows).astype(kind)
        assert random_split_leak(tasks, 0.1, 0.15) == leak_of_sets(tasks.tolist(), 0.1, 0.15)


def test_leaked_groups_are_those_in_two_splits() -> None:
    random_ = np.random.default_rng(1)
    groups, splits = random_.integers(0, 40, 60), random_.integers(0, 3, 60).astype(np.int8)
    expected = {g for g in groups.tolist() if len(set(splits[groups == g].tolist())) > 1}
    assert expected and leaked_groups(splits, groups) == expected
    assert leaked_groups(splits[:0], groups[:0]) == set()


def split_of_lists(roles, groups, names, shares, seed, times):  # type: ignore[no-untyped-def]
    """Groups as lists in the order that random.shuffle makes."""
    numbers = sorted(set(groups))
    assigned = dict.fromkeys(numbers, 0)
    for code in sorted(range(len(names)), key=lambda code: names[code]):
        sizes = {g: sum(a == g and r == code for a, r in zip(groups, roles, strict=True)) for g in numbers}
        mine = [place for place, g in enumerate(numbers) if sizes[g]]
        random.Random(f"{seed}/{names[code]}").shuffle(mine)
        if times is not None:
            latest = {g: max(t for a, t in zip(groups, times, strict=True) if a == g) for g in numbers}
            mine.sort(key=lambda place: -latest[numbers[place]])
        for split, share in ((2, shares[1]), (1, shares[0])):
            room = round(sum(sizes.values()) * share) - sum(sizes[g] for g in numbers if assigned[g] == split)
            for place in mine:
                group = numbers[place]
                if assigned[group] == 0 and sizes[group] <= room:
                    assigned[group] = split
                    room -= sizes[group]
                if room <= 0:
                    break
    return [assigned[g] for g in groups]


def test_splits_equal_those_of_lists() -> None:
    random_ = np.random.default_rng(2)
    for seed in range(5):
        roles, groups = random_.integers(0, 3, 300), random_.integers(0, 90, 300) * 7
        times = random_.integers(0, 40, 300).astype(float)
        for given in (None, times):
            made = split_rows(roles, groups, ["b", "a", "c"], (0.1, 0.2), seed, given)
            listed = None if given is None else given.tolist()
            assert made.tolist() == split_of_lists(
                roles.tolist(), groups.tolist(), ["b", "a", "c"], (0.1, 0.2), seed, listed
            )
