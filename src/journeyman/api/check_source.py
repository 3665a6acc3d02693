"""A check that was typed into a notebook, as a file of its own."""

from __future__ import annotations

import builtins
import dis
import inspect
import math
import sys
import textwrap
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from journeyman.errors import UsageError


def source_of(function: FunctionType) -> str:
    """A Python file that defines the check, with the imports and plain constants that it uses.

    Raises:
        UsageError: its source is not known, or it uses something that a file cannot define.
    """
    name = function.__name__
    in_file = "Put it in a .py file and import it from there"
    try:
        lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    except (OSError, TypeError) as error:
        raise UsageError(f"check {name!r}: its source is not known", in_file) from error
    start = next((at for at, line in enumerate(lines) if line.startswith("def ")), None)
    if start is None or sum(line.startswith("@") for line in lines[:start]) != 1:
        raise UsageError(f"check {name!r}: it has decorators besides journeyman.check", in_file)
    needs = [_definition(name, one, function.__globals__) for one in sorted(set(_globals(function.__code__)) - {name})]
    return "\n".join(
        [
            f"# The check {name}, as a notebook defined it. Written by journeyman: edit it there.",
            "from __future__ import annotations",
            "",
            *filter(None, needs),
            "from journeyman import check",
            "",
            "",
            "@check",
            *lines[start:],
            "",
        ]
    )


def _globals(code: CodeType) -> Iterator[str]:
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(step.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _globals(inner)


def _definition(check: str, name: str, names: dict[str, Any]) -> str:
    """The line that defines a global name; "" for a builtin."""
    if name not in names:
        if hasattr(builtins, name):
            return ""
        raise UsageError(f"check {check!r}: it uses {name}, which is not defined", "Define it first")
    value = names[name]
    if isinstance(value, ModuleType):
        return f"import {value.__name__} as {name}"
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return f"{name} = {value!r}"
    home, own = getattr(value, "__module__", None), getattr(value, "__name__", None)
    if home not in (None, "__main__") and own and getattr(sys.modules.get(home), own, None) is value:
        return f"from {home} import {own} as {name}"
    raise UsageError(
        f"check {check!r}: it uses {name} of this session, which the processes that run checks do not have",
        "Move it into the function, or put both in a .py file and import the check from there",
    )
