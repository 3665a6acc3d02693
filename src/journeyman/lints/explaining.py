"""What the codes of the plan's lints mean, from explained.md beside this file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from journeyman.errors import UsageError

_HEADING = "## "


@cache
def explanations() -> Mapping[str, list[str]]:
    """Code → the lines about it."""
    text = files("journeyman.lints").joinpath("explained.md").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    code = ""
    for line in text.splitlines():
        if line.startswith(_HEADING):
            code = line.removeprefix(_HEADING).strip()
            found[code] = []
        elif code and line.strip():
            found[code].append(line.strip())
    return found


def explanation(code: str) -> list[str]:
    """The lines about a code, with the code itself first.

    Raises:
        UsageError: nothing is written about it.
    """
    found = explanations()
    if code not in found:
        near = difflib.get_close_matches(code, found, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"One of: {', '.join(sorted(found))}"
        raise UsageError(f"no code of the plan is called {code!r}", hint)
    return [code, *found[code]]
