"""curate: interactions → training, validation and sealed test rows; every drop has a rule and a row."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from journeyman.artifacts import read_rows, write_rows
from journeyman.config import Config
from journeyman.curation.duplicates import clusters, members, near_pairs
from journeyman.curation.rules import RULES, strip_reasoning
from journeyman.curation.split import leaked_groups, split_rows
from journeyman.errors import InputError
from journeyman.manifests import DatasetManifest, SplitCounts
from journeyman.ports import Reporter
from journeyman.records import Drop, Example, Interaction, Message
from journeyman.rendering.renderer import Renderer

VERSION = 1


def curate(interactions: Path, config: Config, renderer: Renderer, out: Path, reporter: Reporter) -> DatasetManifest:
    """Filters, removes repeats, renders and splits.

    Raises:
        InputError: nothing is left to train on.
    """
    rows = list(read_rows(interactions, Interaction))
    reporter.begin("curate", len(rows), "rows")
    drops: list[Drop] = []
    passed = _filter(rows, config, drops)
    unique, roots = _without_repeats(passed, config, drops)
    prompts = _system_prompts(unique, config)
    examples = _render(unique, roots, prompts, config, renderer, drops)
    reporter.advance(len(rows))
    splits = split_rows(examples, config.curate.val_share, config.curate.test_share, config.curate.seed)
    assert not leaked_groups(splits)
    if not splits["train"]:
        counted = ", ".join(f"{rule} {n}" for rule, n in Counter(d.rule for d in drops).most_common())
        raise InputError(
            f"{interactions}: none of {len(rows)} interactions is left to train on ({counted})",
            "Loosen [curate] in journeyman.toml or log more",
        )
    (out / "sealed").mkdir(exist_ok=True)
    write_rows(out / "train.jsonl", splits["train"])
    write_rows(out / "val.jsonl", splits["val"])
    write_rows(out / "sealed" / "test.jsonl", splits["test"])
    write_rows(out / "dropped.jsonl", drops)
    assert len(rows) == len(examples) + len(drops)
    return DatasetManifest(
        rows_in=len(rows),
        kept=len(examples),
        dropped=dict(Counter(drop.rule for drop in drops).most_common()),
        splits={
            role: SplitCounts(**{name: sum(r.role == role for r in part) for name, part in splits.items()})
            for role in sorted({row.role for row in examples})
        },
        train_tokens=sum(row.prompt_tokens + row.answer_tokens for row in splits["train"]),
        longest_row_tokens=max(row.prompt_tokens + row.answer_tokens for row in examples),
        system_prompts=prompts,
        notes=_notes(unique, prompts, config),
    )


def _drop(row: Interaction, rule: str, detail: str) -> Drop:
    return Drop(id=row.id, source=row.source, role=row.role, rule=rule, detail=detail)


def _filter(rows: Sequence[Interaction], config: Config, drops: list[Drop]) -> list[Interaction]:
    kept = []
    for row in rows:
        for rule in RULES:
            detail = rule(row, config.curate)
            if detail is not None:
                drops.append(_drop(row, rule.__name__, detail))
                break
        else:
            kept.append(row)
    return kept


def _task(row: Interaction) -> str:
    """What the agent was asked: every turn but the system prompt."""
    return "\n".join(message.content for message in row.messages if message.role != "system")


def _without_repeats(
    rows: Sequence[Interaction], config: Config, drops: list[Drop]
) -> tuple[list[Interaction], list[int]]:
    """The first row of each task and role, and for each kept row the root of its cluster over all roles."""
    texts = [_task(row) for row in rows]
    roots = clusters(len(rows), near_pairs(texts, config.curate.near_duplicate))
    kept: list[int] = []
    for cluster in members(roots).values():
        first_of_role: dict[str, int] = {}
        for index in cluster:
            row = rows[index]
            if row.role not in first_of_role:
                first_of_role[row.role] = index
                kept.append(index)
                continue
            first = first_of_role[row.role]
            rule = "duplicate" if texts[first].strip() == texts[index].strip() else "near_duplicate"
            drops.append(_drop(row, rule, f"the task of {rows[first].source} ({rows[first].id})"))
    kept.sort()
    return [rows[index] for index in kept], [roots[index] for index in kept]


def _logged_system(row: Interaction) -> str | None:
    first = row.messages[0]
    return first.content if first.role == "system" else None


def _system_prompts(rows: Sequence[Interaction], config: Config) -> dict[str, str]:
    """role → the configured prompt, else the one that the role's log shows most often."""
    logged: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        system = _logged_system(row)
        if system is not None:
            logged[row.role][system] += 1
    prompts = {role: counts.most_common(1)[0][0] for role, counts in logged.items()}
    prompts |= {role: c.system_prompt for role, c in config.roles.items() if c.system_prompt is not None}
    return dict(sorted(prompts.items()))


def _render(
    rows: Sequence[Interaction],
    roots: Sequence[int],
    prompts: dict[str, str],
    config: Config,
    renderer: Renderer,
    drops: list[Drop],
) -> list[Example]:
    examples = []
    for row, root in zip(rows, roots, strict=True):
        messages = [message for message in row.messages if message.role != "system"]
        if row.role in prompts:
            messages = [Message(role="system", content=prompts[row.role]), *messages]
        answer = strip_reasoning(row.output or "")
        try:
            rendered = renderer.example(messages, answer)
        except InputError as error:
            drops.append(_drop(row, "template", error.what))
            continue
        if row.max_tokens is not None and rendered.trained_tokens > row.max_tokens:
            drops.append(_drop(row, "truncated", f"{rendered.trained_tokens - 1} tokens, limit {row.max_tokens}"))
        elif len(rendered.ids) > config.curate.max_length:
            drops.append(_drop(row, "too_long", f"{len(rendered.ids)} tokens, limit {config.curate.max_length}"))
        elif not answer:
            drops.append(_drop(row, "empty", "nothing but reasoning"))
        else:
            examples.append(
                _example(row, f"task-{root}", messages, answer, rendered.prompt_tokens, rendered.trained_tokens)
            )
    return examples


def _example(
    row: Interaction, group: str, messages: list[Message], answer: str, prompt_tokens: int, answer_tokens: int
) -> Example:
    return Example(
        id=row.id,
        role=row.role,
        messages=messages,
        answer=answer,
        group=group,
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        duration_ms=row.duration_ms,
        check=row.check,
    )


def _notes(rows: Sequence[Interaction], prompts: dict[str, str], config: Config) -> list[str]:
    notes = []
    for role, prompt in prompts.items():
        mine = [row for row in rows if row.role == role]
        other = sum(_logged_system(row) != prompt for row in mine)
        if other:
            why = "as configured" if config.role(role).system_prompt is not None else "the log's most frequent one"
            notes.append(f"{role}: {other} of {len(mine)} rows get another system prompt than logged ({why})")
    return notes
