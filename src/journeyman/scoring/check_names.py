"""Verifies that the checks named in the config file exist, without running any of them.

Opening a run must not execute user code, so the file of a user's own check is parsed, not imported. Errors that occur
only on import, such as a missing package, are found when checks are loaded: see Checks.load.
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

_DEFINES_DYNAMICALLY = {"globals", "exec", "eval", "setattr", "vars"}
"""A file that calls one of these may define names that parsing does not find."""


def check_name(name: str, folder: Path, judge: JudgeConfig) -> None:
    """Refuses the name of a check that cannot exist.

    Args:
        name: a built-in check, `judge`, `file.py:function` or `inspect:SCORER`.
        folder: the run's folder, which contains the user's files.

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
            raise UsageError("the check 'judge' needs a model", "Set evaluate.judge.url and evaluate.judge.model")
    elif not name.startswith(PREFIX) and name not in (table := plain_checks()):
        raise UsageError(
            f"unknown check {name!r}", f"Use one of: {', '.join(table)}, judge, file.py:function, inspect:SCORER"
        )


def _check_function(name: str, path: Path, function: str) -> None:
    if not path.is_file():
        raise UsageError(
            f"check {name!r}: no file {path}", "Use file.py:function, with file.py next to journeyman.toml"
        )
    try:
        tree = ast.parse(path.read_bytes(), path.name)
    except OSError as error:
        raise UsageError(f"check {name!r}: {path} cannot be read: {error.strerror}", "Make it readable") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"check {name!r}: {path.name} is not valid Python: {error}", "Fix that file") from error
    if function not in set(_names_of(tree.body)) and not _may_define_more(tree):
        raise UsageError(
            f"check {name!r}: {path.name} has no function {function!r}", f"Define it in {path.name}, or fix the name"
        )


def _names_of(body: Iterable[ast.stmt]) -> Iterator[str]:
    """The names that a module binds at its top level, including inside branches."""
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
    """Whether it has star imports or code that writes to the module's namespace: only running the file would tell."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(one.name == "*" for one in node.names):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _DEFINES_DYNAMICALLY:
            return True
    return False
