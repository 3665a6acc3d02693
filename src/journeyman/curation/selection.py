"""Between the passes: decides which rows stay, from the columns alone.

Of duplicates, the row with the best outcome stays. Contradictions, foreign system prompts, planted and misrouted rows
are found by comparing rows. Groups join the rows that must not be in different splits.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from journeyman.config import CurateConfig, RulesConfig
from journeyman.curation.clusters import Clusters
from journeyman.curation.columns import U4, U8, Indices, Rows, equal_runs, row_numbers, sorted_parts, values_at
from journeyman.curation.credit import credited
from journeyman.curation.duplicates import words_of
from journeyman.curation.log import Log
from journeyman.curation.near_duplicates import join_near
from journeyman.curation.poison import planted
from journeyman.curation.routing import Routing, check_routing
from journeyman.curation.rules import rule_numbers
from journeyman.manifests import CreditFunnel
from journeyman.parallel import HERE, Executor
from journeyman.protocols import Reporter
from journeyman.reasons import Reason
from journeyman.reasons import curation as why
from journeyman.records import Interaction
from journeyman.ruleset import rules_of

_ALIEN_SIMILARITY, _ALIEN_SHARE = 0.3, 0.05
_UNANSWERED = rule_numbers("failed", "empty", "mock_provider")


@dataclass(frozen=True)
class Trigger:
    """A trigger word, identified by its hash: the columns contain no words, so the word is looked up in the row."""

    crc32: int

    def in_row(self, row: Interaction) -> why.PlantedTrigger:
        asked = " ".join(turn.content for turn in row.messages if turn.role != "system").lower()
        words = (word for word in re.findall(r"\w+", asked) if zlib.crc32(word.encode()) == self.crc32)
        return why.PlantedTrigger(next(words, None))


Ruling = tuple[str, Reason | Trigger]
"""The name of a rule that compares rows, and its finding about one row."""

_FOUND: Mapping[str, Callable[[Log, int], Reason | Trigger]] = {
    "credit": lambda log, about: why.NoCredit(),
    "duplicate": lambda log, about: why.SameTask(log.where(about)),
    "near_duplicate": lambda log, about: why.SameTask(log.where(about)),
    "contradictory": lambda log, about: why.AgainstMajority(about) if about else why.NoMajority(),
    "foreign": lambda log, about: why.ForeignPrompt() if about else why.PromptMissing(),
    "misrouted": lambda log, about: why.LooksLikeRole(log.roles[about]),
    "poison": lambda log, about: Trigger(about),
}
"""Rule → the meaning of its number in Choice.about or Choice.noted."""
DECISIONS = ("", *rules_of("compared"))


def ruling(rule: str, log: Log, about: int) -> Ruling:
    """The finding of `rule`, from its number for the row."""
    return rule, _FOUND[rule](log, about)


@dataclass
class Choice:
    """The decisions, in arrays with one value per row.

    Attributes:
        rules: the configured actions.
        groups: the number of the row's group, which shares a task or a session.
        weights: the row's weight in the loss.
        rule: the index in DECISIONS of the rule that drops the row; 0 if none does.
        about: a number whose meaning depends on the rule, see `ruling`.
        noted: rule → the same number for rows that are only noted; -1 for all others.
        contradictions: the number of inputs whose short answers disagree.
        workloads: role → number of very different system prompts, if there are several.
    """

    rules: RulesConfig
    groups: Indices
    weights: NDArray[np.float64]
    rule: NDArray[np.uint8]
    about: U4
    noted: dict[str, Indices] = field(default_factory=dict)
    funnels: list[CreditFunnel] = field(default_factory=list)
    routing: Routing | None = None
    contradictions: int = 0
    workloads: dict[str, int] = field(default_factory=dict)

    def found(self, rule: str, rows: Indices, about: Indices) -> None:
        """Drops or notes rows, as configured; a dropped row counts for the first rule that drops it."""
        action = self.rules.action(rule)
        if action == "drop":
            new = self.rule[rows] == 0
            self.rule[rows[new]], self.about[rows[new]] = DECISIONS.index(rule), about[new]
        elif action == "note" and len(rows):
            self.noted.setdefault(rule, np.full(len(self.rule), -1, dtype=np.int64))[rows] = about


def choose(
    log: Log,
    bands: Sequence[Path],
    config: CurateConfig,
    executor: Executor = HERE,
    reporter: Reporter | None = None,
) -> Choice:
    """Decides from the columns. Rows dropped by a rule for single rows are ignored.

    Args:
        bands: the files of bands, each with a hash for every row.
        executor: compares similar tasks.
        reporter: hears how many bands are done.
    """
    rows, rules = log.rows, config.rules
    alive = row_numbers(rows["rule"] == 0)
    clusters = _clusters(log, alive, bands, config, executor, reporter)
    tasks = clusters.roots()
    weights, funnels = credited(rows, log.roles, config.credit)
    nothing = np.zeros(len(rows), dtype=np.uint8)
    about = np.zeros(len(rows), dtype=np.uint32)
    choice = Choice(rules, _groups(rows, clusters, alive), weights, nothing, about, funnels=funnels)
    uncredited = alive[values_at(weights == 0, alive)]
    choice.found("credit", uncredited, np.zeros_like(uncredited))
    _foreign(log, alive, choice)
    _contradictions(rows, _left(alive, choice), choice)
    if rules.action("duplicate") == "drop":
        _repeats(log, _left(alive, choice), tasks, choice)
    unique = _left(alive, choice)
    if rules.action("misrouted") != "keep":
        _misrouted(log, unique, choice)
    if rules.action("poison") != "keep":
        triggers = planted(rows, unique, log.words)
        marked = np.fromiter(triggers, dtype=np.int64, count=len(triggers))
        choice.found("poison", marked, np.array(list(triggers.values()), dtype=np.int64))
    return choice


def _left(rows: Indices, choice: Choice) -> Indices:
    return np.asarray(rows[values_at(choice.rule, rows) == 0])


def _clusters(
    log: Log,
    alive: Indices,
    bands: Sequence[Path],
    config: CurateConfig,
    executor: Executor,
    reporter: Reporter | None,
) -> Clusters:
    """Rows with the same task, or nearly."""
    clusters = Clusters(len(log.rows))
    clusters.join_equal(log.task_keys(alive), alive)
    distinct = np.zeros(len(log.rows), dtype=bool)
    distinct[alive] = True
    distinct &= clusters.smallest()
    join_near(clusters, distinct, bands, log.words, config.near_duplicate, log.own, executor, reporter)
    return clusters


def _groups(rows: Rows, tasks: Clusters, alive: Indices) -> Indices:
    """Joins rows that share a task, a session or the configured key."""
    tasks.join_equal(values_at(rows["session"], alive), alive)
    tasks.join_equal(values_at(rows["key"], alive), alive)
    return tasks.roots()


def _repeats(log: Log, alive: Indices, tasks: Indices, choice: Choice) -> None:
    """Keeps the best of a role's rows with the same task and number of turns: credited, complete, ended, then first."""
    rows = log.rows
    with_others = np.zeros(len(rows), dtype=bool)
    with_others[tasks[alive[tasks[alive] != alive]]] = True
    alive = alive[with_others[tasks[alive]]]
    quality = choice.weights[alive] * 4 + ~rows["cut"][alive] * 2 + rows["done"][alive]
    ordered = alive[np.lexsort((alive, -quality, rows["turns"][alive], rows["role"][alive], tasks[alive]))]
    keys = np.stack([tasks[ordered], rows["role"][ordered].astype(np.int64), rows["turns"][ordered].astype(np.int64)])
    new = np.ones(len(ordered), dtype=bool)
    new[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    best = ordered[np.maximum.accumulate(np.where(new, np.arange(len(ordered)), 0))]
    repeats, kept = ordered[~new], best[~new]
    exact = log.task_keys(repeats) == log.task_keys(kept)
    # Two turns of one conversation resemble each other but are not duplicates.
    same_session = (rows["session"][repeats] != 0) & (rows["session"][repeats] == rows["session"][kept])
    near = ~exact & ~same_session
    choice.found("duplicate", repeats[exact], kept[exact])
    choice.found("near_duplicate", repeats[near], kept[near])


def _contradictions(rows: Rows, alive: Indices, choice: Choice) -> None:
    """Inputs whose short answers disagree: the majority stays; without a majority, no row does.

    An answer that was cut off is not compared: its end is not known, and it may have a complete one beside it.
    """
    comparable = alive[(rows["verdict"][alive] != 0) & ~rows["cut"][alive]]
    keys = _asked_of(rows, comparable) ^ rows["system"][comparable]
    for run in equal_runs(keys):
        group = comparable[run]
        verdicts = rows["verdict"][group]
        if (verdicts == verdicts[0]).all():
            continue
        choice.contradictions += 1
        (most, count), *others = Counter(verdicts.tolist()).most_common(2)
        tie = others[0][1] == count
        against = group if tie else group[verdicts != np.uint64(most)]
        choice.found("contradictory", against, np.full(len(against), 0 if tie else count))


def _foreign(log: Log, alive: Indices, choice: Choice) -> None:
    """Rare system prompts that share hardly a word with the role's own."""
    rows = log.rows
    for code, role in enumerate(log.roles):
        mine = alive[(rows["role"][alive] == code) & (log.own[alive] == 0)]
        if not len(mine) or (log.own[alive[rows["role"][alive] == code]] != 0).any():
            continue  # if prompts vary, none is foreign
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
        strange = mine[np.isin(rows["system"][mine], np.array(rare, dtype=np.uint64))]
        choice.found("foreign", strange, (rows["system"][strange] != 0).astype(np.int64))


def _prompt_words(log: Log, prompt: int) -> frozenset[int]:
    return frozenset(words_of(log.prompts.get(prompt, "")).tolist())


def _misrouted(log: Log, unique: Indices, choice: Choice) -> None:
    """Compares all answered tasks, but reports only the remaining rows."""
    rows = log.rows
    answered = row_numbers((rows["words"] > 0) & ~np.isin(rows["rule"], _UNANSWERED))
    first = np.full(len(rows), -1, dtype=answered.dtype)
    """For answered rows, the first one with the same task and role."""
    for order, new in sorted_parts(_asked_of(rows, answered)):
        ordered = answered[order]
        first[ordered] = ordered[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
    asked = answered[first[answered] == answered]
    prompts = [_main_prompt(log, code) for code in range(len(log.roles))]
    choice.routing = routing = check_routing(rows["role"][asked], asked, log.words, prompts)
    compared = unique[first[unique] >= 0]
    place = np.searchsorted(asked, first[compared])
    flagged = routing.flagged[place]
    choice.found("misrouted", compared[flagged], routing.looks_like[place[flagged]])


def _asked_of(rows: Rows, some: Indices) -> U8:
    """A key of the task and role of each of `some` rows."""
    keys, roles = values_at(rows["task"], some), values_at(rows["role"], some).astype(np.uint64)
    roles *= np.uint64(0x9E3779B97F4A7C15)
    keys ^= roles
    return keys


def _main_prompt(log: Log, role: int) -> str:
    """The system prompt that most of the role's rows have."""
    values, counts = np.unique(log.rows["system"][log.rows["role"] == role], return_counts=True)
    return log.prompts.get(int(values[counts.argmax()]), "") if len(values) else ""
