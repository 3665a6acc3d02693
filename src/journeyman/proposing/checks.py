"""Proposes checks for a role from a sample of its answers."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from journeyman import reasoning
from journeyman.config import CurateConfig
from journeyman.proposing.survey import is_cut
from journeyman.records import Interaction
from journeyman.scoring.code_block import fenced_blocks, python_source
from journeyman.scoring.row_data import fault_of

_MOST, _MANY, _SOME = 0.9, 0.8, 0.2
_CODE = 0.6
_LABEL_CHARACTERS, _LABEL_WORDS = 60, 6
_LEAST_LABELS = 6
_LONG_WORDS = 80
"""Two right answers of more words than this rarely share half of them: a judge compares better."""
_DIFF = re.compile(r"^(?:diff --git |--- .+\n\+\+\+ |@@ -\d)", re.MULTILINE)
_OF_ROW = ("regex", "contains", "json_schema", "patch_applies", "python_tests", "catches_mutants")
"""In the order in which they are run: those that execute code last."""
_NEEDS = {
    "python_tests": ("tests",), "catches_mutants": ("right", "wrong"), "json_schema": ("schema",),
    "patch_applies": ("files",), "regex": ("pattern",), "contains": ("contains",),
}  # fmt: skip


@dataclass(frozen=True)
class CheckProposal:
    """`checks` for roles.NAME.checks, `why` they were chosen, and `hints` about alternatives, as sentences."""

    checks: tuple[str, ...]
    why: tuple[str, ...]
    hints: tuple[str, ...] = ()


def proposed_checks(rows: Sequence[Interaction]) -> CheckProposal:
    """Proposes checks for the role of the sampled rows: the first that apply of

    1. checks for which at least 80 % of the rows have data in `check` (tests, schema, files, pattern, …);
    2. tool_call, if at least 20 % of the answers call tools;
    3. exact, for short labels that repeat; normalized, for other short answers;
    4. python_parses, for Python code;
    5. similarity, for JSON without a schema, diffs without files, and prose; a judge is suggested for long prose.
    """
    usable = [one for one in rows if one.succeeded is not False and (one.output or one.output_calls)]
    usable = [one for one in usable if one.provider not in CurateConfig().drop_providers] or usable
    if not usable:
        return CheckProposal(("answered",), (f"none of {len(rows)} sampled rows has a successful answer",))
    for rule in (_by_row_data, _by_calls, _by_labels, _by_form):
        if (found := rule(usable)) is not None:
            return found
    return _prose(usable)


def _by_row_data(rows: Sequence[Interaction]) -> CheckProposal | None:
    checks, why, hints = [], [], []
    for name in _OF_ROW:
        having = [one for one in rows if all(key in one.check for key in _NEEDS[name])]
        if not having:
            continue
        keys = " and ".join(f"check.{key}" for key in _NEEDS[name])
        share = f"{len(having)} of {len(rows)} rows have {keys}"
        faults = [fault for one in having if (fault := fault_of([name], one.check))]
        if len(having) < _MANY * len(rows):
            hints.append(f"{share}: too few for {name}, which leaves the others unscored")
        elif len(faults) > (1 - _MANY) * len(having):
            hints.append(f"{share}, but {name} cannot use them: {faults[0]}")
        else:
            checks.append(name)
            why.append(share + (f"; {name} cannot use {len(faults)} of them ({faults[0]})" if faults else ""))
    if not checks:
        return None
    return CheckProposal(("answered", *checks), tuple(why), tuple(hints))


def _by_calls(rows: Sequence[Interaction]) -> CheckProposal | None:
    calling = [one for one in rows if one.output_calls]
    if len(calling) < _SOME * len(rows):
        return None
    names = Counter(call.name for one in calling for call in one.output_calls)
    tools = ", ".join(f"{name} {count}" for name, count in names.most_common(4)) + (", …" if len(names) > 4 else "")
    why = f"{len(calling)} of {len(rows)} answers call tools: {tools}"
    hints: tuple[str, ...] = ()
    if len(calling) < len(rows):
        others = f"of the {len(rows) - len(calling)} other answers, tool_call only checks that they call nothing"
        hints = (f'{others}; a judge could compare their text: checks = ["answered", "tool_call", "judge"]',)
    return CheckProposal(("answered", "tool_call"), (why,), hints)


def _by_labels(rows: Sequence[Interaction]) -> CheckProposal | None:
    texts = [answer_text(one).strip() for one in rows]
    short = [text for text in texts if _is_label(text)]
    if len(short) < _MOST * len(texts):
        return None
    counts = Counter(short)
    share = f"{len(short)} of {len(texts)} answers are one short line"
    expected = sum(isinstance(one.check.get("expected"), str) for one in rows)
    having = f"; {expected} of {len(rows)} rows have check.expected" if expected else ""
    if len(short) >= _LEAST_LABELS and len(counts) <= len(short) // 3:
        names = ", ".join(f"{text!r} {count}" for text, count in counts.most_common(5))
        return CheckProposal(
            ("answered", "exact"), (f"{share}, {len(counts)} different ones: {names}{having}",), _always(counts)
        )
    return CheckProposal(
        ("answered", "normalized"), (f"{share}, {len(counts)} different ones{having}",),
        ("normalized ignores case, white space and punctuation at the ends of words; exact does not",),
    )  # fmt: skip


def _always(counts: Counter[str]) -> tuple[str, ...]:
    return ("all answers are the same, so a model that always gives this answer passes",) if len(counts) == 1 else ()


def _is_label(text: str) -> bool:
    fits = bool(text) and len(text) <= _LABEL_CHARACTERS and "\n" not in text and len(text.split()) <= _LABEL_WORDS
    return fits and text[0] not in "{["


def _by_form(rows: Sequence[Interaction]) -> CheckProposal | None:
    whole = [one for one in rows if not is_cut(one)] or rows
    texts = [answer_text(one) for one in whole]

    def share_of(matches: Callable[[str], bool], what: str) -> tuple[float, str]:
        count = sum(map(matches, texts))
        return count / len(texts), f"{count} of {len(texts)} complete answers {what}"

    share, why = share_of(_is_json_object, "are one JSON object")
    if share >= _MOST:
        hint = 'a JSON Schema in check.schema would allow a stricter check: checks = ["answered", "json_schema"]'
        return CheckProposal(("answered", "similarity"), (f"{why}; no row has a schema",), (_keys(texts), hint))
    share, why = share_of(lambda text: _DIFF.search(text) is not None, "contain a diff")
    if share >= _MANY:
        hint = "rows with the files in check.files (path → content) can be checked with patch_applies"
        return CheckProposal(("answered", "similarity"), (f"{why}; no row has the files that they change",), (hint,))
    share, why = share_of(_is_python, "contain Python that parses")
    if share >= _CODE:
        hint = "rows with assertions in check.tests can be checked with python_tests, which runs the code"
        return CheckProposal(("answered", "python_parses"), (why,), (hint,))
    return None


def _keys(texts: Sequence[str]) -> str:
    counts = Counter(key for text in texts for key in _json_object(text))
    shown = ", ".join(f"{key} {count}" for key, count in counts.most_common(8))
    return f"keys of the answers: {shown}" + (", …" if len(counts) > 8 else "")


def _prose(rows: Sequence[Interaction]) -> CheckProposal:
    words = round(median(len(answer_text(one).split()) for one in rows))
    code = sum(_is_python(answer_text(one)) for one in rows)
    why = [f"{len(rows)} answers of {words} words (median): not labels, JSON, diffs or tool calls"]
    if code:
        why.append(f"{code} of them contain Python that parses, too few for python_parses")
    expected = sum(isinstance(one.check.get("expected"), str) for one in rows)
    if expected:
        why.append(
            f"{expected} of {len(rows)} rows have check.expected, which is compared instead of the logged answer"
        )
    hints = ["similarity requires ROUGE-L ≥ 0.5 against the logged answer"]
    if words > _LONG_WORDS:
        hints.append(
            "answers this long can be right in different words: a judge compares better. "
            'Set [evaluate.judge] below and checks = ["answered", "judge"]'
        )
    return CheckProposal(("answered", "similarity"), tuple(why), tuple(hints))


def answer_text(one: Interaction) -> str:
    """The answer without reasoning, as it is trained on by default."""
    text = one.output or ""
    return reasoning.stripped(text) if reasoning.may_hold(text) else text


def _json_object(text: str) -> dict[str, Any]:
    body = text.strip()
    if body.startswith("```"):
        blocks = list(fenced_blocks(body))
        body = blocks[0][1] if len(blocks) == 1 and body.endswith("```") else body
    if not body.lstrip().startswith("{"):
        return {}
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_json_object(text: str) -> bool:
    return bool(_json_object(text))


def _is_python(text: str) -> bool:
    """Whether the text parses as Python and is more than words, a number or a literal, which parse as well."""
    languages = {language for language, _ in fenced_blocks(text)}
    if languages and not languages & {"python", "py", "python3", ""}:
        return False
    try:
        tree = ast.parse(python_source(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(not isinstance(one, ast.Expr) or isinstance(one.value, ast.Call) for one in tree.body)
