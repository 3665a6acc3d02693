"""Determines how the system prompts of a role vary: one for all rows, a template with varying parts, or free.

A role with a fixed prompt is trained and served with it. If prompts carry a document, a customer or the row's tools, an
answer is right only with its own prompt: each row keeps it, and serving accepts the client's.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from journeyman.config import Config
from journeyman.curation.columns import U8, Indices
from journeyman.curation.log import Log
from journeyman.manifests import RolePrompt

FIXED_SHARE = 0.8
"""Share of a role's rows that must have a prompt for it to be the role's prompt."""
_RARE_ROWS, _RARE_SHARE = 2, 0.1
_LEAST_FRAME = 20
"""Minimum number of characters that all prompts must share at their start and end to count as a template."""


def role_prompts(log: Log, alive: Indices, config: Config) -> dict[str, RolePrompt]:
    """Returns role → its prompt contract. Configured prompts are fixed; a role without any prompt is left out."""
    found = {}
    for code, role in enumerate(log.roles):
        configured = config.role(role).system_prompt
        mine = log.rows["system"][alive[log.rows["role"][alive] == code]]
        made = _role_prompt(mine, log.prompts) if configured is None else _fixed(configured, len(mine), 1)
        if made is not None:
            found[role] = made
    configured_only = {role: c.system_prompt for role, c in config.roles.items() if role not in log.roles}
    found |= {role: _fixed(prompt, 0, 1) for role, prompt in configured_only.items() if prompt is not None}
    return dict(sorted(found.items()))


def _fixed(text: str, rows: int, distinct: int) -> RolePrompt:
    return RolePrompt(kind="fixed", text=text, begins="", ends="", rows=rows, distinct=distinct)


def _role_prompt(mine: U8, texts: Mapping[int, str]) -> RolePrompt | None:
    values, counts = np.unique(mine, return_counts=True)
    if not len(values) or (len(values) == 1 and values[0] == 0):
        return None
    known = {int(v): texts[int(v)] for v in values.tolist() if int(v) in texts}
    most = int(values[counts.argmax()])
    rare = int(counts[counts <= _RARE_ROWS].sum())
    varies = len(values) > 1 and (counts.max() < FIXED_SHARE * len(mine) or _rarely_alike(rare, len(mine), len(values)))
    if not varies and most in known:
        return _fixed(known[most], len(mine), len(values))
    begins, ends = _frame(list(known.values())) if len(known) == len(values) else ("", "")
    kind = "templated" if len(begins) + len(ends) >= _LEAST_FRAME else "free"
    if kind == "free":
        begins, ends = "", ""
    return RolePrompt(kind=kind, text="", begins=begins, ends=ends, rows=len(mine), distinct=len(values))


def _rarely_alike(rare: int, rows: int, distinct: int) -> bool:
    """Whether many prompts are shared by hardly any rows; a few strays next to a fixed prompt don't count."""
    return distinct > 2 and rare > max(_RARE_ROWS, _RARE_SHARE * rows)


def _frame(texts: list[str]) -> tuple[str, str]:
    """The common start and end of all texts, cut at white space so that neither contains part of a word."""
    begins = _common_start(texts)
    rest = [text[len(begins) :] for text in texts]
    ends = _common_start([text[::-1] for text in rest])[::-1]
    if any(rest) and begins and not begins[-1].isspace():
        begins = begins[: max((place for place, character in enumerate(begins, 1) if character.isspace()), default=0)]
    if ends and not ends[0].isspace():
        ends = ends[min((place for place, character in enumerate(ends) if character.isspace()), default=len(ends)) :]
    return begins, ends


def _common_start(texts: list[str]) -> str:
    first, last = min(texts), max(texts)  # all texts in between share what these two share
    differ = (place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(differ, min(len(first), len(last)))]


def own_prompts(log: Log, prompts: Mapping[str, RolePrompt]) -> U8:
    """The hash of each row's prompt if it keeps its own, else 0: such a prompt is part of the task."""
    vary = [code for code, role in enumerate(log.roles) if role in prompts and prompts[role].kind != "fixed"]
    return np.where(np.isin(log.rows["role"], vary), log.rows["system"], np.uint64(0)).astype(np.uint64)
