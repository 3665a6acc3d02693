"""Summarizes the findings of the rules: the figures of the lint report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from journeyman.config import Config
from journeyman.curation.columns import Indices, count_distinct, numbered
from journeyman.curation.log import Log
from journeyman.curation.passes import Counts
from journeyman.curation.rules import rule_numbers
from journeyman.curation.selection import Choice
from journeyman.curation.split import NAMES, TEST, TRAIN, Splits, random_split_leak
from journeyman.curation.template_notes import template_notes
from journeyman.curation.terms import denied_in_vain, terms_of_all
from journeyman.foreign import named
from journeyman.manifests import (
    DatasetManifest,
    Lengths,
    Repetition,
    RolePrompt,
    RoutingQuality,
    RuleCount,
    SplitCounts,
    TeacherQuality,
    TermsOfTeacher,
)
from journeyman.reasons import Reason, dataset
from journeyman.rendering.renderer import Renderer
from journeyman.ruleset import RULESET, rules_of
from journeyman.stats.groups import effective_rows

_FEW_ROWS = 50
"""With fewer rows a role learns little: OpenAI's fine-tuning guide sees clear gains from 50 to 100 examples."""
_COMMON_ID = 0.1
_MUCH_CUT = 0.4
_NAMES = ("", *rules_of("row"))
_FAILED = rule_numbers("failed", "empty")


def lint(
    log: Log,
    state: Mapping[str, Any],
    choice: Choice,
    counts: Counts,
    examples: NDArray[Any],
    split: Splits,
    leak_check: Reason,
    prompts: Mapping[str, RolePrompt],
    renderer: Renderer,
    config: Config,
) -> DatasetManifest:
    """Builds the dataset's manifest."""
    roles, groups = log.rows["role"][examples["row"]], choice.groups[examples["row"]]
    splits = {
        role: SplitCounts(
            **{name: int(((roles == code) & (split == n)).sum()) for n, name in enumerate(NAMES)},
            effective_test=effective_rows(np.unique_counts(groups[(roles == code) & (split == TEST)]).counts.tolist()),
        )
        for code, role in sorted(enumerate(log.roles), key=lambda pair: pair[1])
        if (roles == code).any()
    }
    dropped = dropped_by_rule(log, counts)
    noted = Counter({(rule, role): n for rule, role, n in state["noted"]}) + counts["noted"]
    by_rule: Counter[str] = Counter()
    for (rule, _), count in dropped.items():
        by_rule[rule] += count
    teachers, repetition = _teachers(log, state["teachers"]), _repetition(log, config)
    terms = terms_of_all(
        state["teachers"], log.rows["teacher"][examples["row"]].astype(np.int64), config.curate.teacher_terms
    )
    return DatasetManifest(
        rows_in=len(log.rows),
        kept=len(examples),
        dropped=dict(by_rule.most_common()),
        rules=_rules(dropped, noted + _too_few(splits), config),
        splits=splits,
        train_tokens=int(examples["tokens"][split == TRAIN].sum(dtype=np.int64)),
        longest_row_tokens=int(examples["tokens"].max()),
        system_prompts={role: prompt.text for role, prompt in prompts.items() if prompt.kind == "fixed"},
        prompts=dict(prompts),
        teachers=teachers,
        teacher_terms=dict(terms),
        lengths=_lengths(log, config),
        repetition=repetition,
        routing=_routing(choice),
        credit=choice.funnels,
        leak_check=leak_check.record(),
        notes=[
            note.record()
            for note in (
                *template_notes(renderer, config.curate),
                *_prompt_notes(log, choice, prompts, splits, renderer, config),
                *_limit_notes(log),
                *_endless(log.rows["cut"][examples["row"]][split == TRAIN], config),
                *_terms_notes(terms, state["teachers"], config),
                *_notes(log, state, choice, splits, teachers, repetition),
            )
        ],
    )


def _terms_notes(terms: Mapping[str, TermsOfTeacher], teachers: list[str], config: Config) -> list[Reason]:
    """Whose terms are not known, if the user has begun to say whose are, and which denials name nobody."""
    asked = config.curate.teacher_terms
    unknown = [f"{named(name)} ({one.rows} rows)" for name, one in terms.items() if one.terms == "unknown" and one.rows]
    in_vain = ", ".join(repr(pattern) for pattern in denied_in_vain(teachers, asked))
    return [
        *([dataset.TermsNotKnown(", ".join(unknown))] if unknown and (asked.allow or asked.deny) else []),
        *([dataset.DeniedNobody(in_vain)] if in_vain else []),
    ]


def dropped_by_rule(log: Log, counts: Counts) -> Counter[tuple[str, str]]:
    """Rows dropped in either pass, by rule and role."""
    dropped = Counter(counts["dropped"])
    pairs, numbers = np.unique(
        np.stack([log.rows["rule"], log.rows["role"]]).astype(np.int64), axis=1, return_counts=True
    )
    for (rule, role), count in zip(pairs.T.tolist(), numbers.tolist(), strict=True):
        if rule:
            dropped[_NAMES[rule], log.roles[role]] += count
    return dropped


def _too_few(splits: Mapping[str, SplitCounts]) -> Counter[tuple[str, str]]:
    """The number of training rows of each role that has too few."""
    return Counter({("too_few", role): counts.train for role, counts in splits.items() if counts.train < _FEW_ROWS})


def _rules(dropped: Counter[tuple[str, str]], noted: Counter[tuple[str, str]], config: Config) -> dict[str, RuleCount]:
    rules = {}
    for name, defined in RULESET.items():
        rules[name] = RuleCount(
            what=defined.what,
            action=config.curate.rules.action(name),
            dropped={role: n for (rule, role), n in sorted(dropped.items()) if rule == name and n},
            noted={role: n for (rule, role), n in sorted(noted.items()) if rule == name and n},
        )
    return rules


def _successes(log: Log) -> NDArray[np.bool_]:
    return ~np.isin(log.rows["rule"], _FAILED)


class _Some:
    """Some rows of a log, of which a column is copied when it is asked for."""

    def __init__(self, log: Log, rows: Indices) -> None:
        self._log, self.rows = log, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, column: str) -> NDArray[Any]:
        return np.asarray(self._log.rows[column][self.rows])


def _teachers(log: Log, names: list[str]) -> dict[str, TeacherQuality]:
    teachers = {}
    truncated = rule_numbers("truncated")
    for code, name in enumerate(names):
        mine = _Some(log, np.flatnonzero(log.rows["teacher"] == code))
        teachers[name] = TeacherQuality(
            rows=len(mine),
            failed=int(np.isin(mine["rule"], _FAILED).sum()),
            truncated=int((np.isin(mine["rule"], truncated) | mine["cut"]).sum()),
            opens_reasoning=int((mine["thinks"] > 0).sum()),
            never_closes_reasoning=int((mine["thinks"] == 1).sum()),
            usable=int((mine["rule"] == 0).sum()),
            mean_output_tokens=float(mine["output_tokens"].mean()) if len(mine) else None,
        )
    return dict(sorted(teachers.items(), key=lambda pair: -pair[1].rows))


def _lengths(log: Log, config: Config) -> Lengths | None:
    rows = _Some(log, np.flatnonzero(_successes(log)))
    if not len(rows):
        return None
    total = rows["prompt_tokens"].astype(np.int64) + rows["output_tokens"]
    limit = config.curate.max_length
    return Lengths(
        rows=len(rows),
        mean_prompt=float(rows["prompt_tokens"].mean()),
        mean_output=float(rows["output_tokens"].mean()),
        mean_total=float(total.mean()),
        longest=int(total.max()),
        padding_waste=float(1 - np.minimum(total, limit).mean() / limit),
    )


def _repetition(log: Log, config: Config) -> Repetition:
    rows = _Some(log, np.flatnonzero(_successes(log)))
    tasks = numbered(log.task_keys(rows.rows))
    mean, worst, tests = random_split_leak(tasks, config.curate.val_share, config.curate.test_share)
    return Repetition(
        rows=len(rows),
        distinct_tasks=int(tasks.max()) + 1 if len(tasks) else 0,
        distinct_ids=count_distinct(rows["id"]),
        random_split_leaks=mean,
        worst_random_split_leaks=worst,
        random_split_tests=tests,
    )


def _routing(choice: Choice) -> RoutingQuality | None:
    routing = choice.routing
    if routing is None:
        return None
    return RoutingQuality(
        method=routing.method,
        tasks=len(routing.flagged),
        flagged=int(routing.flagged.sum()),
        agreement=routing.agreement,
        guessing=routing.guessing,
        found=routing.found,
        note=None if routing.note is None else routing.note.record(),
    )


def _notes(
    log: Log,
    state: Mapping[str, Any],
    choice: Choice,
    splits: Mapping[str, SplitCounts],
    teachers: Mapping[str, TeacherQuality],
    repetition: Repetition,
) -> list[Reason]:
    notes: list[Reason] = []
    usable = {name: t for name, t in teachers.items() if t.usable}
    if len(usable) > 1:
        mixed = ", ".join(f"{name} ({t.usable} of {t.rows} rows usable)" for name, t in usable.items())
        notes.append(dataset.SeveralTeachers(mixed))
    notes += [dataset.SeveralWorkloads(role, count) for role, count in choice.workloads.items()]
    tools = {name: len(versions) for name, versions in state["tools"].items() if len(versions) > 1}
    notes += [dataset.ToolChanged(name, count) for name, count in tools.items()]
    notes += [dataset.FewTrainingRows(role, n, _FEW_ROWS) for (_, role), n in _too_few(splits).items()]
    if choice.contradictions:
        notes.append(dataset.ContradictoryAnswers(choice.contradictions))
    if repetition.distinct_ids < repetition.rows:
        notes.append(dataset.RepeatedIds(repetition.rows - repetition.distinct_ids))
    for path, values in state["ids"].items():
        value, count = max(values.items(), key=lambda pair: pair[1])
        if count > max(10, _COMMON_ID * len(log.rows)):
            notes.append(dataset.CommonId(path, value, count, len(log.rows)))
    largest = np.bincount(choice.groups[log.rows["rule"] == 0]).max() if (log.rows["rule"] == 0).any() else 0
    if largest > 0.5 * (log.rows["rule"] == 0).sum() and largest > 10:
        notes.append(dataset.LargeGroup(int(largest)))
    return notes


def _prompt_notes(
    log: Log,
    choice: Choice,
    prompts: Mapping[str, RolePrompt],
    splits: Mapping[str, SplitCounts],
    renderer: Renderer,
    config: Config,
) -> list[Reason]:
    notes: list[Reason] = []
    texts = {prompt: key for key, prompt in log.prompts.items()}
    alive = (log.rows["rule"] == 0) & (choice.rule == 0)
    for code, role in enumerate(log.roles):
        if role in prompts and prompts[role].kind != "fixed":
            notes.append(_varying_note(role, prompts[role]))
        elif role in prompts:
            mine = log.rows["system"][alive & (log.rows["role"] == code)]
            other = int((mine != np.uint64(texts.get(prompts[role].text, 0))).sum())
            if other:
                configured = config.role(role).system_prompt is not None
                notes.append(dataset.PromptReplaced(role, other, len(mine), configured))
    injected = renderer.injected_system_prompt()
    bare = [role for role in splits if role not in prompts]
    if injected is not None:
        notes += [dataset.PromptInjected(role, injected) for role in bare]
    return notes


def _varying_note(role: str, prompt: RolePrompt) -> Reason:
    if prompt.kind == "free":
        return dataset.FreePrompts(role, prompt.distinct, prompt.rows)
    return dataset.TemplatedPrompts(role, prompt.distinct, prompt.rows, prompt.begins[:40], prompt.ends[-40:])


def _endless(cut: NDArray[np.bool_], config: Config) -> list[Reason]:
    """If many training rows have no end, the model does not learn to stop (docs/real-log.md)."""
    if config.curate.rules.action("truncated") != "keep_without_end" or not len(cut) or cut.mean() < _MUCH_CUT:
        return []
    return [dataset.CutTrainingRows(int(cut.sum()), len(cut))]


def _limit_notes(log: Log) -> list[Reason]:
    """Notes on limits that truncate many answers of the log."""
    rows = _Some(log, np.flatnonzero(_successes(log)))
    notes: list[Reason] = []
    for limit in np.unique(rows["limit"][rows["limit"] > 0]).tolist():
        mine = _Some(log, rows.rows[rows["limit"] == limit])
        cut = np.isin(mine["rule"], rule_numbers("truncated", "unclosed_reasoning")) | mine["cut"]
        if cut.mean() > 0.2:
            notes.append(dataset.LimitCuts(limit, int(cut.sum()), len(mine), int(mine["fence"].sum())))
    return notes
