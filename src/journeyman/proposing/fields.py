"""Proposes how to map a log's fields: data.role_field if no role was found, data.columns if no format matches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from journeyman.config import DataConfig
from journeyman.records import EVERY_ROLE
from journeyman.sources.fields import decoded
from journeyman.sources.unknown import column_candidates, nearest

_ROLE_NAMES = ("role", "agent", "agent_role", "agent_name", "agent_type", "agent_id", "persona")
_PERHAPS = (
    "node", "team", "skill", "task_type", "assistant", "step", "component", "use_case", "feature", "category", "name",
    "prompt_name", "kind",
)  # fmt: skip
_SPEAKERS = {"user", "assistant", "system", "tool", "human", "gpt", "developer"}
_MOST_ROLES, _LONGEST_ROLE = 30, 60
_DEPTH = 4


@dataclass(frozen=True)
class RoleField:
    """A field that may name the role.

    Attributes:
        path: dotted path, for data.role_field.
        values: value → number of rows.
        rows: number of rows examined.
        sure: the name says that it is the role, and nearly every row has it.
    """

    path: str
    values: Counter[str]
    rows: int
    sure: bool


@dataclass(frozen=True)
class Columns:
    """A mapping for rows that match no format.

    Attributes:
        columns: for data.columns: journeyman's field → the row's field.
        others: journeyman's field → further candidates.
        seen: field → number of rows that have it.
        nearest: similar formats → the fields that they share with the rows.
        rows: number of rows that match no format.
        sure: prompt and answer have only one candidate each.
    """

    columns: dict[str, str]
    others: dict[str, list[str]]
    seen: Counter[str]
    nearest: dict[str, list[str]]
    rows: int
    sure: bool


def role_fields(values: Sequence[Mapping[str, Any]]) -> list[RoleField]:
    """Fields that may name a role, the most likely first."""
    found: dict[str, Counter[str]] = {}
    for value in values:
        for path, text in _short_texts(value):
            found.setdefault(path, Counter())[text] += 1
    fields = []
    for path, counts in found.items():
        name = path.rsplit(".", 1)[-1].lower()
        covered = counts.total()
        if name not in (*_ROLE_NAMES, *_PERHAPS) or covered < 0.5 * len(values):
            continue
        repeat = len(counts) <= _MOST_ROLES and (covered >= 2 * len(counts) or len(values) < 10)
        if not repeat or _SPEAKERS & counts.keys() or EVERY_ROLE in counts:
            continue
        sure = name in _ROLE_NAMES and covered >= 0.95 * len(values)
        fields.append(RoleField(path, counts, len(values), sure))
    order = (*_ROLE_NAMES, *_PERHAPS)
    return sorted(fields, key=lambda one: (not one.sure, order.index(one.path.rsplit(".", 1)[-1].lower()), one.path))


def _short_texts(value: Mapping[str, Any], path: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, str]]:
    for key, inner in value.items():
        here = f"{path}.{key}" if path else str(key)
        if isinstance(inner, str) and inner[:1] in ("{", "["):
            inner = decoded(inner)
        if isinstance(inner, str) and 0 < len(inner) <= _LONGEST_ROLE:
            yield here, inner
        elif isinstance(inner, dict) and depth > 1 and "." not in str(key):
            yield from _short_texts(inner, here, depth - 1)


def proposed_columns(strangers: Sequence[Mapping[str, Any]]) -> Columns:
    """Proposes a mapping for rows that match no format. It has not been tried, even if it is `sure`."""
    seen = Counter(str(key) for value in strangers for key in value)
    counts: dict[str, Counter[str]] = {}
    for value in strangers:
        for name, paths in column_candidates(value).items():
            counts.setdefault(name, Counter()).update(paths)
    columns: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    taken: set[str] = set()
    for name, candidates in counts.items():
        often = [path for path, count in candidates.items() if count >= 0.5 * len(strangers) and path not in taken]
        if often:
            columns[name], others[name] = often[0], often[1:]
            taken.add(often[0])
    near: dict[str, list[str]] = nearest(strangers[0]) if strangers else {}
    sure = {"prompt", "answer"} <= columns.keys() and not others["prompt"] and not others["answer"]
    return Columns(columns, others, seen, near, len(strangers), sure)


def with_columns(data: DataConfig, columns: Mapping[str, str]) -> DataConfig:
    return data.model_copy(update={"columns": dict(columns)})
