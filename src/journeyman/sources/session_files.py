"""Recognizes files that are one session of a coding agent by their first lines: Claude Code, Codex CLI, OpenHands.

The modules of the formats name the sources of their structure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from journeyman.reasons import files as why

MAX_SESSION_BYTES = 64 << 20
SESSION_NAMES = {"claude_code": "Claude Code", "codex": "Codex", "openhands": "OpenHands"}
_LINES_TRIED = 8

_CLAUDE_TYPES = {"user", "assistant", "system", "summary", "progress", "attachment", "tag", "mode"}
_CODEX_TYPES = {"session_meta", "response_item", "event_msg", "turn_context", "compacted"}
_CLAUDE_START = re.compile(rb'(?<!\\)"parentUuid"\s*:|(?<!\\)"type"\s*:\s*"file-history-snapshot"')
_CODEX_START = re.compile(rb'(?<!\\)"type"\s*:\s*"(?:%s)"' % "|".join(sorted(_CODEX_TYPES)).encode())
_OPENHANDS_SOURCES = {"agent", "user", "environment", "hook"}


def session_format(head: bytes) -> str | None:
    """The format of the session that a file contains, judging by its beginning, or None.

    The beginning may end anywhere, even within the first line, which is then recognized by its field names only.
    """
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head[:1] == b"[":
        return _of_first_element(head[1:].decode("utf-8", errors="replace").lstrip())
    *lines, rest = head.split(b"\n")
    tried = [line for line in lines if line.strip()][:_LINES_TRIED]
    for line in tried:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return line_format(value)
    if tried:
        return None
    try:
        value = json.loads(rest)
    except (ValueError, RecursionError):
        return _of_names(rest)
    return line_format(value) if isinstance(value, dict) else None


def _of_first_element(text: str) -> str | None:
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return line_format(value) if isinstance(value, dict) else None


def _of_names(line: bytes) -> str | None:
    if line[:1] != b"{":
        return None
    if _CODEX_START.search(line) and b'"payload"' in line:
        return "codex"
    return "claude_code" if _CLAUDE_START.search(line) else None


def line_format(value: Mapping[str, Any]) -> str | None:
    """The format of the session that the line belongs to, or None."""
    if is_claude(value):
        return "claude_code"
    if is_codex(value):
        return "codex"
    return "openhands" if is_openhands(value) else None


def is_claude(value: Mapping[str, Any]) -> bool:
    type_ = value.get("type")
    if not isinstance(type_, str):
        return False
    if "parentUuid" in value or (type_ == "summary" and "leafUuid" in value):
        return True
    if type_ == "file-history-snapshot":
        return "snapshot" in value
    is_known = type_ in _CLAUDE_TYPES or re.fullmatch(r"[a-z]+(?:-[a-z]+)+", type_) is not None
    return is_known and isinstance(value.get("sessionId"), str)


def is_codex(value: Mapping[str, Any]) -> bool:
    if isinstance(value.get("payload"), dict):
        return value.get("type") in _CODEX_TYPES if isinstance(value.get("type"), str) else False
    if "record_type" in value and len(value) == 1:
        return True
    is_meta = isinstance(value.get("id"), str) and isinstance(value.get("timestamp"), str) and "type" not in value
    return is_meta and "instructions" in value and value.keys() <= {"id", "timestamp", "instructions", "git"}


def is_openhands(value: Mapping[str, Any]) -> bool:
    source = value.get("source")
    if not isinstance(source, str) or source not in _OPENHANDS_SOURCES:
        return False
    kind = value.get("kind")
    if isinstance(kind, str) and kind.endswith("Event"):
        return isinstance(value.get("timestamp"), str)
    acts = "action" in value and isinstance(value.get("args"), dict)
    return isinstance(value.get("id"), int) and (acts or {"observation", "content"} <= value.keys())


def beside(path: Path) -> dict[str, Any]:
    """Metadata that Claude Code writes next to a sub-agent's agent-ID.jsonl: its type, in agent-ID.meta.json."""
    try:
        value = json.loads(path.with_name(path.name.partition(".")[0] + ".meta.json").read_bytes()[: 1 << 16])
    except (OSError, ValueError, RecursionError):
        return {}
    type_ = value.get("agentType") if isinstance(value, dict) else None
    return {"agentType": type_} if isinstance(type_, str) and type_ else {}


def refused_name(name: str) -> why.BinaryLog | None:
    """Says why a file of this name cannot be read and what to do; None if it can."""
    if not name.endswith(".eval"):
        return None
    return why.BinaryLog("Inspect", "inspect log convert --to json --output-dir DIR FILE")
