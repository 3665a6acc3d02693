"""The rows of trials: those of training and validation, parts of them, and folds."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from journeyman.artifacts import read_rows
from journeyman.records import Example
from journeyman.runs import Run


@dataclass(frozen=True)
class TrialRows:
    """What a trial is trained on, and what it is scored on."""

    train: Sequence[Example]
    val: Sequence[Example]

    def part(self, share: float, seed: int = 0) -> TrialRows:
        """The same with a share of the training rows: whole groups, of each role alike, at least one.

        A larger share of the same seed contains the smaller one.
        """
        if share >= 1:
            return self
        kept: set[str] = set()
        for rows in _by_role(self.train).values():
            wanted, count = max(1, round(share * len(rows))), 0
            for group in sorted({row.group for row in rows}, key=lambda one: _order(one, seed)):
                if count >= wanted:
                    break
                members = [row.id for row in rows if row.group == group]
                kept.update(members)
                count += len(members)
        return replace(self, train=[row for row in self.train if row.id in kept])

    def only(self, keep: Callable[[Example], bool]) -> TrialRows:
        """The same with those training rows that `keep` accepts; all are scored as before."""
        return replace(self, train=[row for row in self.train if keep(row)])

    def folds(self, count: int, seed: int = 0) -> Iterator[TrialRows]:
        """Each row is scored once, by an adapter that was trained on other groups: cross-validation.

        Groups are dealt out in an order that depends only on them: those with training rows first, then those with
        validation rows only, of equal roles one after the other. So every fold gets about as many of each kind.
        """
        every = [*self.train, *self.val]
        trained = {row.group for row in self.train}
        roles: dict[str, set[str]] = defaultdict(set)
        for row in every:
            roles[row.group].add(row.role)
        groups = sorted(roles, key=lambda one: (one not in trained, sorted(roles[one]), _order(one, seed)))
        fold_of = {group: number % count for number, group in enumerate(groups)}
        for fold in range(count):
            yield TrialRows(
                [row for row in every if fold_of[row.group] != fold],
                [row for row in every if fold_of[row.group] == fold],
            )


def rows_of(run: Run) -> TrialRows:
    """The training and validation rows of a run; raises InputError if it has not been curated."""
    return TrialRows(
        list(read_rows(run.file("curate", "train.jsonl"), Example)),
        list(read_rows(run.file("curate", "val.jsonl"), Example)),
    )


def _by_role(rows: Sequence[Example]) -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        found[row.role].append(row)
    return found


def _order(group: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{group}".encode()).digest()
