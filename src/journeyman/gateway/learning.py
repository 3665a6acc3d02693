"""Proposes rules for roles from what was recorded: one role for each kind of system prompt."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from journeyman.config import RoleRule
from journeyman.foreign import file_part
from journeyman.gateway.roles import Facts, role_of
from journeyman.gateway.row_files import lines_of, row_files, row_in
from journeyman.sources.fields import mapping

_BEGINNING = 60
_MOST_ROWS = 20_000
_NAMED = re.compile(
    r"\byou are (?:an? |the )?([a-z][a-z -]{2,30}?)(?:\s+(?:agent|who|that|for|of|in|at)\b|[.,:;\n])", re.I
)
_SIGNS = re.compile(r"[\\.^$*+?{}\[\]|()]")
_VARYING = re.compile(r"\d+|<[A-Z_]+_\d+>")


@dataclass
class Group:
    """Requests with the same beginning of a system prompt.

    Attributes:
        beginning: of the prompt; empty: they have none.
        now: the roles that the rules of today give them.
    """

    beginning: str
    rows: int = 0
    conversations: set[str] = field(default_factory=set)
    models: Counter[str] = field(default_factory=Counter)
    now: Counter[str] = field(default_factory=Counter)
    example: str = ""


def groups(folder: Path, rules: list[RoleRule]) -> list[Group]:
    """The kinds of requests, the most frequent first; of many rows, the first 20,000 are read."""
    found: dict[str, Group] = {}
    for row in _rows(folder):
        request = mapping(row.get("request"))
        if not request or not ("messages" in request or "input" in request):
            continue
        facts = Facts(
            str(row.get("path", "")), mapping(row.get("headers")),
            str(row.get("key", "")), str(row.get("key_hash", "")), request,
        )  # fmt: skip
        beginning = _beginning(facts.system)
        group = found.setdefault(beginning, Group(beginning, example=facts.system))
        group.rows += 1
        group.conversations.add(str(row.get("conversation", row.get("seq"))))
        group.models[facts.model] += 1
        group.now[role_of(facts, rules)] += 1
    return sorted(found.values(), key=lambda one: -one.rows)


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    number = 0
    for path in row_files(folder):
        for line in lines_of(path):
            number += 1
            if number > _MOST_ROWS:
                return
            yield row_in(line)


def _beginning(system: str) -> str:
    """What prompts of one kind share: their first words, up to a number or a placeholder."""
    line = next((one.strip() for one in system.splitlines() if one.strip()), "")
    return _VARYING.split(line, maxsplit=1)[0][:_BEGINNING].strip()


def proposed(found: list[Group]) -> list[tuple[RoleRule, Group]]:
    """A rule for each group with a system prompt. Longer beginnings come first: the first match counts."""
    made, names = [], Counter[str]()
    for group in sorted(found, key=lambda one: -len(one.beginning)):
        if not group.beginning:
            continue
        name = _name(group.beginning)
        names[name] += 1
        if names[name] > 1:
            name = f"{name}-{names[name]}"
        made.append(
            (
                RoleRule.model_validate({"role": name, "system": "^\\s*" + _SIGNS.sub(r"\\\g<0>", group.beginning)}),
                group,
            )
        )
    return made


def _name(beginning: str) -> str:
    told = _NAMED.search(beginning + ".")
    words = (told[1] if told else beginning).lower().split()[:3]
    return file_part("-".join(re.sub(r"[^a-z0-9]", "", word) for word in words).strip("-") or "role")
