"""Between the passes: which rows stay, from the columns alone.

Repeats keep the row with the best outcome; contradictions, alien system prompts, planted rows and misrouted
ones are found by comparing rows; groups tie together what must not be split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from journeyman.config import CurateConfig
from journeyman.curation.columns import U8, Indices, Rows, equal_runs
from journeyman.curation.credit import credited
from journeyman.curation.duplicates import Clusters, Words, join_near, words_of
from journeyman.curation.poison import planted
from journeyman.curation.routing import Routing, check_routing
from journeyman.curation.rules import RULES
from journeyman.manifests import CreditFunnel

_ALIEN_SIMILARITY, _ALIEN_SHARE = 0.3, 0.05
_UNANSWERED = tuple(n for n, rule in enumerate(RULES, start=1) if rule.__name__ in ("failed", "empty", "mock_provider"))


@dataclass
class Choice:
    """What was decided.

    Attributes:
        dropped: row → (rule, detail).
        noted: row → [(rule, detail)].
        groups: for each row the number of its group: one task or session.
        weights: for each row.
        contradictions: inputs with short answers that disagree.
        workloads: role → system prompts of very different texts, where there are several.
    """

    dropped: dict[int, tuple[str, str]]
    groups: Indices
    weights: NDArray[np.float64]
    noted: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    funnels: list[CreditFunnel] = field(default_factory=list)
    routing: Routing | None = None
    contradictions: int = 0
    repeats: int = 0
    workloads: dict[str, int] = field(default_factory=dict)

    def note(self, row: int, rule: str, detail: str) -> None:
        self.noted.setdefault(row, []).append((rule, detail))


class Log:
    """The columns of a log with its tables of names."""

    def __init__(
        self, rows: Rows, words: Words, roles: Sequence[str], files: Sequence[str], prompts: Mapping[int, str]
    ):
        self.rows, self.words, self.roles, self.files, self.prompts = rows, words, roles, files, prompts

    def where(self, row: int) -> str:
        return f"{self.files[self.rows['file'][row]]}:{self.rows['line'][row]}"


def choose(log: Log, bands: Sequence[Path], config: CurateConfig) -> Choice:
    """Decides from the columns. Rows that a rule of single rows dropped take no part."""
    rows = log.rows
    alive = np.flatnonzero(rows["rule"] == 0)
    tasks = _clusters(log, alive, bands, config)
    weights, funnels = credited(rows, log.roles, config.credit)
    choice = Choice({}, _groups(rows, tasks, alive), weights, funnels=funnels)
    for row in alive[weights[alive] == 0].tolist():
        choice.dropped[row] = ("credit", "what had to follow in the session did not")
    _foreign(log, alive, config.rules.foreign, choice)
    _contradictions(rows, _left(alive, choice), config.rules.contradictory, choice)
    if config.rules.duplicate == "drop":
        _repeats(log, _left(alive, choice), tasks, choice)
    unique = _left(alive, choice)
    _misrouted(log, unique, config.rules.misrouted, choice)
    if config.rules.poison != "keep":
        for row, trigger in planted(rows, unique, log.words).items():
            _found(choice, config.rules.poison, row, "poison", f"a trigger with always the same answer [{trigger}]")
    return choice


def _left(rows: Indices, choice: Choice) -> Indices:
    return np.array([row for row in rows.tolist() if row not in choice.dropped], dtype=np.int64)


def _found(choice: Choice, action: str, row: int, rule: str, detail: str) -> None:
    if action == "drop":
        choice.dropped.setdefault(row, (rule, detail))
    elif action == "note":
        choice.note(row, rule, detail)


def _clusters(log: Log, alive: Indices, bands: Sequence[Path], config: CurateConfig) -> Indices:
    """For each row the first row of its task's cluster."""
    clusters = Clusters(len(log.rows))
    keys: U8 = log.rows["task"]
    clusters.join_equal(keys, alive)
    distinct = alive[np.unique(keys[alive], return_index=True)[1]] if len(alive) else alive
    distinct = np.sort(distinct)
    join_near(clusters, distinct, bands, log.words, config.near_duplicate)
    return clusters.roots()


def _groups(rows: Rows, tasks: Indices, alive: Indices) -> Indices:
    """Tasks, sessions and named keys tied together."""
    clusters = Clusters(len(rows))
    clusters.join_equal(tasks.astype(np.uint64) + np.uint64(1), alive)
    clusters.join_equal(rows["session"], alive)
    clusters.join_equal(rows["key"], alive)
    return clusters.roots()


def _repeats(log: Log, alive: Indices, tasks: Indices, choice: Choice) -> None:
    """Of one role's rows of one task and as many turns the best stays: credited, whole, ended, then the first."""
    rows = log.rows
    quality = choice.weights[alive] * 4 + ~rows["cut"][alive] * 2 + rows["done"][alive]
    order = np.lexsort((alive, -quality, rows["turns"][alive], rows["role"][alive], tasks[alive]))
    ordered = alive[order]
    keys = np.stack([tasks[ordered], rows["role"][ordered].astype(np.int64), rows["turns"][ordered].astype(np.int64)])
    new = np.ones(len(ordered), dtype=bool)
    new[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    best = ordered[np.maximum.accumulate(np.where(new, np.arange(len(ordered)), 0))] if len(ordered) else ordered
    for row, kept in zip(ordered[~new].tolist(), best[~new].tolist(), strict=True):
        same_session = rows["session"][row] and rows["session"][row] == rows["session"][kept]
        exact = rows["task"][row] == rows["task"][kept]
        if same_session and not exact:
            continue  # two turns of one conversation resemble each other and are no repeats
        choice.dropped[row] = ("duplicate" if exact else "near_duplicate", f"the task of {log.where(kept)}")


def _contradictions(rows: Rows, alive: Indices, action: str, choice: Choice) -> None:
    """Inputs whose short answers disagree: the majority stays; without one nobody does."""
    comparable = alive[rows["verdict"][alive] != 0]
    keys = rows["task"][comparable] ^ (rows["role"][comparable].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    keys ^= rows["system"][comparable]
    for run in equal_runs(keys):
        group = comparable[run]
        verdicts = rows["verdict"][group]
        if (verdicts == verdicts[0]).all():
            continue
        choice.contradictions += 1
        (most, count), *others = Counter(verdicts.tolist()).most_common(2)
        tie = others[0][1] == count
        for row, verdict in zip(group.tolist(), verdicts.tolist(), strict=True):
            if tie or verdict != most:
                detail = f"{len(group)} answers to this input, {'no majority' if tie else f'{count} say otherwise'}"
                _found(choice, action, row, "contradictory", detail)


def _foreign(log: Log, alive: Indices, action: str, choice: Choice) -> None:
    """Rare system prompts that share hardly a word with the role's own."""
    rows = log.rows
    for code, role in enumerate(log.roles):
        mine = alive[rows["role"][alive] == code]
        prompts, counts = np.unique(rows["system"][mine], return_counts=True)
        if len(prompts) < 2:
            continue
        main = int(prompts[counts.argmax()])
        own = _prompt_words(log, main)
        alien = []
        for prompt, count in zip(prompts.tolist(), counts.tolist(), strict=True):
            other = _prompt_words(log, prompt)
            union = len(own | other)
            if prompt != main and (not union or len(own & other) / union < _ALIEN_SIMILARITY):
                alien.append((prompt, count))
        large = sum(count >= _ALIEN_SHARE * len(mine) for _, count in alien)
        if large:
            choice.workloads[role] = large + 1
        rare = [prompt for prompt, count in alien if count < _ALIEN_SHARE * len(mine)]
        for row in mine[np.isin(rows["system"][mine], np.array(rare, dtype=np.uint64))].tolist():
            what = "no system prompt" if rows["system"][row] == 0 else "a system prompt unlike the role's"
            _found(choice, action, row, "foreign", what)


def _prompt_words(log: Log, prompt: int) -> frozenset[int]:
    return frozenset(words_of(log.prompts.get(prompt, "")).tolist())


def _misrouted(log: Log, unique: Indices, action: str, choice: Choice) -> None:
    """The check looks at every task that was answered, and speaks of the rows that stay."""
    if action == "keep":
        return
    rows = log.rows
    asked = np.flatnonzero((rows["words"] > 0) & ~np.isin(rows["rule"], _UNANSWERED))
    keys = rows["task"][asked] ^ (rows["role"][asked].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    asked = np.sort(asked[np.unique(keys, return_index=True)[1]])
    prompts = [_main_prompt(log, code) for code in range(len(log.roles))]
    choice.routing = routing = check_routing(rows["role"][asked].astype(np.int64), asked, log.words, prompts)
    tasks = {(int(rows["task"][r]), int(rows["role"][r])): place for place, r in enumerate(asked.tolist())}
    for row in unique.tolist():
        place = tasks.get((int(rows["task"][row]), int(rows["role"][row])))
        if place is not None and routing.flagged[place]:
            role = log.roles[routing.looks_like[place]]
            _found(choice, action, row, "misrouted", f"its task looks like {role}'s")


def _main_prompt(log: Log, role: int) -> str:
    """The system prompt that most of the role's rows have."""
    values, counts = np.unique(log.rows["system"][log.rows["role"] == role], return_counts=True)
    return log.prompts.get(int(values[counts.argmax()]), "") if len(values) else ""
