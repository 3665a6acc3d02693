"""Tables for notebooks. All text is escaped: rows and role names come from logs."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from journeyman.foreign import plain_lines

_MOST_TEXT = 200
_COLORS = {
    **dict.fromkeys(("deploy", "fresh", "pass"), "#1a7f5a"),
    **dict.fromkeys(("iterate", "insufficient", "stale", "unfinished", "unknown"), "#a86400"),
    **dict.fromkeys(("abort", "fail"), "#b3261e"),
}
_CELL = "text-align:left;vertical-align:top"


def escaped(value: Any) -> str:
    """A value as HTML text: cut, and without characters that act."""
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    if len(text) > _MOST_TEXT:
        text = text[: _MOST_TEXT - 1] + "…"
    return html.escape(plain_lines(text))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """A table; words that are a state or a verdict have its color."""
    head = "".join(f'<th style="{_CELL}">{escaped(name)}</th>' for name in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    above = f"<p>{escaped(caption)}</p>" if caption else ""
    return f"<div>{above}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def facts(title: str, values: Mapping[str, Any]) -> str:
    """A table of two columns."""
    return table([title, ""], values.items())


def _cell(value: Any) -> str:
    color = _COLORS.get(value) if isinstance(value, str) else None
    style = f"{_CELL};color:{color};font-weight:600" if color else _CELL
    return f'<td style="{style}">{escaped(value)}</td>'
