"""The agent log: one JSON object a line with task, agent, llm, execution and context.

Everything that the record does not name is kept in `extra`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from journeyman.errors import UsageError
from journeyman.records import Interaction, Message, Rejected

MAX_LINE_BYTES = 16 << 20


def read_interactions(path: Path) -> Iterator[Interaction | Rejected]:
    """Every non-blank line of a file, as an Interaction or as Rejected with the reason.

    Raises:
        UsageError: the file is missing, is a folder or cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _parse_line(line, path.name, number)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file", "Set data.sources in journeyman.toml to your log files") from error
    except IsADirectoryError as error:
        raise UsageError(f"{path}: is a folder, not a file", f'Set data.sources to "{path.name}/*.jsonl"') from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "Make the file readable and run it again") from error


def _parse_line(line: bytes, source: str, number: int) -> Interaction | Rejected:
    def rejected(reason: str) -> Rejected:
        text = line[:200].decode("utf-8", errors="replace").rstrip()
        return Rejected(source=source, line=number, reason=reason, text=text)

    if len(line) > MAX_LINE_BYTES:
        return rejected(f"longer than {MAX_LINE_BYTES >> 20} MiB")
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return rejected(f"not UTF-8: byte {error.start}")
    except json.JSONDecodeError as error:
        return rejected(f"not JSON: {error.msg} at column {error.colno}")
    except (RecursionError, ValueError) as error:
        return rejected(f"not usable JSON: {error}")
    try:
        return _interaction(row, source, number)
    except _Missing as missing:
        return rejected(str(missing))


class _Missing(Exception):
    """A field that an interaction cannot do without."""


def _interaction(row: Any, source: str, number: int) -> Interaction:
    if not isinstance(row, dict):
        raise _Missing(f"a JSON {type(row).__name__}, not an object")
    rest = dict(row)
    agent, llm, execution = (_section(rest, name) for name in ("agent", "llm", "execution"))
    role = _pop_text(agent, "role")
    if role is None:
        raise _Missing("no agent.role")
    messages = [_message(m, i) for i, m in enumerate(_pop_list(execution, "input_messages"))]
    if not any(m.role == "user" for m in messages):
        raise _Missing("no user message in execution.input_messages")
    if "output" not in execution:
        raise _Missing("no execution.output")
    output = execution.pop("output")
    if output is not None and not isinstance(output, str):
        raise _Missing(f"execution.output is {type(output).__name__}, not text")
    errors = [str(error) for error in _pop_list(execution, "errors")]
    settings = llm.get("config") if isinstance(llm.get("config"), dict) else {}
    check = rest.pop("check", None)
    return Interaction(
        id=_pop_text(rest, "id") or f"{source}:{number}",
        source=f"{source}:{number}",
        role=role,
        messages=messages,
        output=output,
        succeeded=execution.pop("status", None) == "success" and not errors,
        errors=errors,
        provider=_pop_text(llm, "provider"),
        model=_pop_text(llm, "model"),
        duration_ms=_pop_number(execution, "duration_ms"),
        max_tokens=_whole(settings.get("max_tokens")) if isinstance(settings, dict) else None,
        finish_reason=_pop_text(execution, "finish_reason"),
        timestamp=_pop_text(rest, "timestamp"),
        check=check if isinstance(check, dict) else {},
        extra={**rest, "agent": agent, "llm": llm, "execution": execution},
    )


def _section(row: dict[str, Any], name: str) -> dict[str, Any]:
    value = row.pop(name, None)
    if not isinstance(value, dict):
        raise _Missing(f"no {name} object")
    return dict(value)


def _message(value: Any, index: int) -> Message:
    if (
        not isinstance(value, dict)
        or not isinstance(value.get("role"), str)
        or not isinstance(value.get("content"), str)
    ):
        raise _Missing(f"execution.input_messages[{index}] has no text role and content")
    return Message(role=value["role"], content=value["content"])


def _pop_list(section: dict[str, Any], name: str) -> list[Any]:
    value = section.pop(name, None)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _Missing(f"{name} is {type(value).__name__}, not a list")
    return value


def _pop_text(section: dict[str, Any], name: str) -> str | None:
    value = section.pop(name, None)
    if value is None or isinstance(value, str):
        return value
    section[name] = value
    return None


def _pop_number(section: dict[str, Any], name: str) -> float | None:
    value = section.pop(name, None)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12:
        return float(value)
    if value is not None:
        section[name] = value
    return None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
