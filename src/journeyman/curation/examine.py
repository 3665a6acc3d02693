"""The first pass over the rows, in worker processes: the rules for single rows, and the columns for all others."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from journeyman import reasoning
from journeyman.artifacts import row_bytes
from journeyman.config import CurateConfig
from journeyman.curation.columns import ROW, U4, Names, Rows, hash_text
from journeyman.curation.duplicates import bands_of, words_of
from journeyman.curation.row_batches import RowBatch
from journeyman.curation.rules import RULES, Candidate, CheckFault, bad_check
from journeyman.errors import InputError
from journeyman.models.base import Vocabulary
from journeyman.reasons import Reason
from journeyman.reasons import curation as why
from journeyman.records import Finding, Interaction, Message, ToolCall, split_system, system_text, tool_name
from journeyman.rendering.renderer import Renderer
from journeyman.sources.fields import at_path, epoch_s

SHOWN = 300
_LABEL_WORDS = 3
_WORD = re.compile(r"\w+")
_ID_ENDS = ("id", "ID", "Id", "iD")
_OPENINGS = (
    "yes",
    "no",
    "approved",
    "approve",
    "rejected",
    "reject",
    "pass",
    "passed",
    "fail",
    "failed",
    "true",
    "false",
)


@dataclass
class Examined:
    """The results of a batch of rows.

    Attributes:
        rows: their columns; role, teacher and file are codes into the three lists.
        words: the words of their tasks, end to end.
        bands: [rows, BANDS] MinHash bands.
        findings: file name → dropped or noted rows as JSON lines.
        prompts: hash of a system prompt → the prompt.
        tools: tool name → hash of its schema → [schema, rows, first time, last time].
        ids: path of a field that is called an id → value → number of rows.
    """

    rows: Rows
    words: U4
    bands: U4
    roles: list[str]
    teachers: list[str]
    files: list[str]
    findings: dict[str, bytes]
    noted: Counter[tuple[str, str]] = field(default_factory=Counter)
    prompts: dict[int, str] = field(default_factory=dict)
    tools: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    ids: dict[str, Counter[str]] = field(default_factory=dict)


class Examiner:
    """The state of a worker process."""

    def __init__(self, base: Vocabulary, config: CurateConfig, check_fault: CheckFault | None = None) -> None:
        self.check_fault = check_fault
        self.renderer = Renderer(base)
        self.config = config
        actions = [config.rules.action(rule.__name__) for rule in RULES]
        self.asked = [
            (number, rule, action)
            for number, (rule, action) in enumerate(zip(RULES, actions, strict=True), start=1)
            if action != "keep"
        ]
        self._overheads: dict[tuple[str, ...], int] = {}
        self.outcomes = [(need.role, re.compile(need.matches)) for rule in config.credit for need in rule.needs]

    def prompt_tokens(self, row: Interaction) -> int:
        """Tokens of the logged prompt. The tokens that the template adds depend only on the sequence of roles."""
        roles = tuple(turn.role for turn in row.messages)
        if roles not in self._overheads:
            bare = [Message(role=role, content="x") for role in roles]
            try:
                self._overheads[roles] = self.renderer.prompt_tokens(bare) - len(roles) * self.renderer.count("x")
            except InputError:  # the template refuses this sequence of roles; the second pass reports it
                self._overheads[roles] = 0
        count, repeated = self.renderer.count, self.renderer.count_repeated
        return self._overheads[roles] + sum(
            [repeated(turn.content) if turn.role == "system" else count(turn.content) for turn in row.messages]
        )


def examine(worker: Examiner, batch: RowBatch) -> Examined:
    """Applies the rules for single rows and fills the columns."""
    lines = batch.lines()
    rows = np.zeros(len(lines), dtype=ROW)
    roles, teachers, files = Names(), Names(), Names()
    words: list[U4] = []
    made = Examined(rows, np.empty(0, np.uint32), np.empty((0, 0), np.uint32), [], [], [], {})
    findings: dict[str, list[bytes]] = {"dropped": [], "noted": []}
    for place, line in enumerate(lines):
        row = Interaction.model_validate_json(line)
        seen = Candidate(row, worker.config, worker.renderer, worker.check_fault)
        one = rows[place]  # a view: what is set in it is set in the array
        found = _apply_rules(seen, worker, one)
        for finding in found + _redacted(row):
            findings["dropped" if finding.action == "dropped" else "noted"].append(row_bytes(finding))
            made.noted[finding.rule, row.role] += finding.action != "dropped"
        name, _, number = row.source.rpartition(":")
        one["role"], one["file"], one["line"] = roles.code(row.role), files.code(name), int(number)
        one["teacher"] = teachers.code(row.teacher)
        words.append(words_of(seen.asked))
        one["words"] = len(words[-1])
        _fill(one, seen, worker)
        _gather(made, row, one)
    made.words = np.concatenate(words) if words else made.words
    made.bands = bands_of(words)
    made.roles, made.teachers, made.files = roles.names, teachers.names, files.names
    made.findings = {name: b"".join(parts) for name, parts in findings.items()}
    return made


def _apply_rules(seen: Candidate, worker: Examiner, one: Any) -> list[Finding]:
    found = []
    for number, rule, action in worker.asked:
        reason = rule(seen)
        if reason is None:
            continue
        if action == "strip" and isinstance(reason, why.OnlyReasoning):
            action = "drop"
        if action == "keep_without_end":
            one["cut"] = True
        if rule is bad_check:
            one["unfit"] = True
        done: Any = {"drop": "dropped", "note": "noted"}.get(action, "mended")
        found.append(finding_of(seen.row, rule.__name__, done, reason))
        if action == "drop":
            one["rule"] = number
            break
    return found


def finding_of(row: Interaction, rule: str, action: Any, reason: Reason) -> Finding:
    """A finding with the start of the task and the end of the answer."""
    task = next((turn.content for turn in reversed(row.messages) if turn.role != "system"), "")
    answer = row.output or " ".join(call.name for call in row.output_calls)
    return Finding(
        id=row.id, log_id=row.log_id, source=row.source, role=row.role, rule=rule, action=action,
        reason=reason.record(), task=task[:SHOWN], answer=answer[-SHOWN:],
    )  # fmt: skip


_REPLACED = {"secrets": why.SecretsReplaced, "personal": why.PersonalReplaced}


def _redacted(row: Interaction) -> list[Finding]:
    found = []
    for rule, kind in _REPLACED.items() if row.redacted else ():
        counts = {one.name: row.redacted[one.name] for one in fields(kind) if one.name in row.redacted}
        if counts:
            found.append(finding_of(row, rule, "mended", kind(**counts)))
    return found


def _fill(one: Any, seen: Candidate, worker: Examiner) -> None:
    row, output = seen.row, seen.output
    system = system_text(row.messages)
    time = epoch_s(row.timestamp)
    tail = seen.answer.rstrip().rsplit("\n", 1)[-1].strip().lower()
    key = at_path(row.extra, worker.config.group_by) if worker.config.group_by else None
    asked = json.dumps([(t.role, t.content.strip(), _calls(t.tool_calls)) for t in split_system(row.messages)[1]])
    one["id"] = hash_text(row.log_id or row.id)
    one["task"] = hash_text(asked)
    one["system"] = hash_text(system) if system else 0
    one["session"] = hash_text(row.session) if row.session else 0
    one["key"] = hash_text(json.dumps(key, sort_keys=True)) if key not in (None, "") else 0
    lower = seen.lower if seen.answer is output else seen.answer.lower()
    one["answer"] = hash_text(" ".join(lower.split()) + _calls(row.output_calls))
    one["tail"] = hash_text(tail) if len(tail) >= 20 else 0
    one["verdict"] = _verdict(seen.answer, row.output_calls)
    one["turns"] = min(len(row.messages), 65535)
    one["limit"] = row.max_tokens or 0
    one["prompt_tokens"] = worker.prompt_tokens(row)
    one["output_tokens"] = seen.output_tokens + 1 if output else 0
    one["time"] = np.nan if time is None else time
    one["done"] = row.finish_reason in ("stop", "tool_calls")
    thinks = reasoning.opens(output, seen.markers)
    one["thinks"] = thinks + (thinks and reasoning.closes(output, seen.markers))
    one["fence"] = seen.open_fence
    bits = 0
    for bit, (role, pattern) in enumerate(worker.outcomes):
        bits |= (role == row.role and bool(pattern.search(output))) << bit
    one["outcomes"] = bits


def _calls(calls: list[ToolCall]) -> str:
    return json.dumps([(c.name, c.arguments) for c in calls], sort_keys=True, default=str) if calls else ""


def _verdict(answer: str, calls: list[ToolCall]) -> int:
    """A hash of what two answers to the same input must agree on, or 0 if their wording may differ."""
    if calls:
        return hash_text(_calls(calls))
    text = answer.strip()
    if text[:1] in ("{", "["):
        try:
            return hash_text(json.dumps(json.loads(text), sort_keys=True))
        except (ValueError, RecursionError):
            return 0
    first = _WORD.search(text, 0, 400)
    if first and first[0].lower() in _OPENINGS:
        return hash_text(first[0].lower())
    words = _WORD.findall(text.lower()) if len(text) < 100 else []
    return hash_text(" ".join(words)) if 0 < len(words) <= _LABEL_WORDS else 0


def _gather(made: Examined, row: Interaction, one: Any) -> None:
    if one["system"]:
        made.prompts.setdefault(int(one["system"]), system_text(row.messages))
    for path, value in _id_fields(row.extra):
        made.ids.setdefault(path, Counter())[str(value)[:60]] += 1
    for tool in row.tools:
        name = tool_name(tool)
        schema = json.dumps(tool, sort_keys=True)
        versions = made.tools.setdefault(name, {})
        seen = versions.setdefault(str(hash_text(schema)), [tool, 0, float(one["time"]), float(one["time"])])
        seen[1] += 1
        seen[2], seen[3] = np.fmin(seen[2], one["time"]).item(), np.fmax(seen[3], one["time"]).item()


def _id_fields(extra: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Fields called …id in the two top levels of what the log contains beyond the record."""
    for key, value in extra.items():
        inner = value.items() if isinstance(value, dict) else ()
        for path, one in [(key, value), *((f"{key}.{k}", v) for k, v in inner if k[-2:] in _ID_ENDS)]:
            if isinstance(one, str | int) and path[-2:] in _ID_ENDS:
                yield path, one
