"""Whether the checks that journeyman.toml names exist, without running any of them.

A check of the user's own is user code: reading a run must not execute it. Its file is parsed, not imported, and what
goes wrong when it is imported (a missing package, say) is found where checks are loaded: see Checks.load.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

from journeyman.config import JudgeConfig
from journeyman.errors import UsageError
from journeyman.scoring.checks import JUDGE, plain_checks
from journeyman.scoring.inspect_scorer import PREFIX

_DEFINES_WHAT_IT_LIKES = {"globals", "exec", "eval", "setattr", "vars"}
"""A file that calls one of these may define names that parsing does not show."""


def check_name(name: str, folder: Path, judge: JudgeConfig) -> None:
    """Refuses the name of a check that cannot exist.

    Args:
        name: a check of the table, `judge`, `file.py:function`, or `inspect:SCORER`.
        folder: the run's, where the user's files lie.

    Raises:
        UsageError: an unknown check, a judge without a model, no such file or function, or inspect-ai is missing.
    """
    if name.startswith(PREFIX) and importlib.util.find_spec("inspect_ai") is None:
        raise UsageError(f"check {name!r} needs the package inspect-ai", "Run: pip install inspect-ai")
    place = name.removeprefix(PREFIX)
    if ":" in place:
        file, _, function = place.partition(":")
        _check_function(name, (folder / file).resolve(), function)
    elif name == JUDGE:
        if not judge.url or not judge.model:
            raise UsageError("the check 'judge' needs a model to ask", "Set evaluate.judge.url and .model")
    elif not name.startswith(PREFIX) and name not in (table := plain_checks()):
        raise UsageError(
            f"unknown check {name!r}", f"One of: {', '.join(table)}, judge; or file.py:function, inspect:SCORER"
        )


def _check_function(name: str, path: Path, function: str) -> None:
    if not path.is_file():
        raise UsageError(f"check {name!r}: no file {path}", "Write it as file.py:function, beside journeyman.toml")
    try:
        tree = ast.parse(path.read_bytes(), path.name)
    except OSError as error:
        raise UsageError(f"check {name!r}: {path} cannot be read: {error.strerror}", "Make it readable") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"check {name!r}: {path.name} is not valid Python: {error}", "Fix that file") from error
    if function not in set(_names_of(tree.body)) and not _may_define_more(tree):
        raise UsageError(f"check {name!r}: {path.name} has no function {function!r}", "Write it as file.py:function")


def _names_of(body: Iterable[ast.stmt]) -> Iterator[str]:
    """The names that a module binds at its top level, in its branches as well."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((one.asname or one.name).partition(".")[0] for one in node.names)
            continue
        yield from (one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store))
        for part in ("body", "orelse", "finalbody"):
            yield from _names_of(getattr(node, part, []))
        for inner in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
            yield from _names_of(inner.body)


def _may_define_more(tree: ast.Module) -> bool:
    """Star imports and code that writes into the module's names: only executing the file would tell."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(one.name == "*" for one in node.names):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _DEFINES_WHAT_IT_LIKES:
            return True
    return False
