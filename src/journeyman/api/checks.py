"""Checks written in Python: `@journeyman.check` makes a function usable as a check of a role.

Checks run in processes of their own, which import the file that defines them: nothing is pickled. A config names such
a check as `file.py:function`. A function of a notebook has no file, so its source is written below the run folder.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import update_wrapper
from pathlib import Path
from typing import Any, NamedTuple

from journeyman.errors import UsageError

_FOLDER = "checks"

_registered: dict[str, dict[str, CheckFunction]] = {}
"""Name → the module that defines it → the check."""


class Reference(NamedTuple):
    """A check as a config names it.

    Attributes:
        source: what has to be written to the named file, below the run folder; None if the file is there.
    """

    name: str
    source: str | None = None


class CheckFunction:
    """A function that says whether an answer is right. It is called like the function itself."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if not inspect.isfunction(function) or inspect.iscoroutinefunction(function):
            raise TypeError(f"@journeyman.check needs a plain function, not {function!r}")
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        found = inspect.signature(function).parameters.values()
        places = [one for one in found if one.kind in kinds]
        needed = [one for one in found if one.default is one.empty and one.kind in (*kinds, one.KEYWORD_ONLY)]
        if not places or len(needed) > 2 or any(one.kind is one.KEYWORD_ONLY for one in needed):
            raise TypeError(f"{function.__qualname__}: a check takes the answer, and the row's check data if it wants")
        self.function, self._takes_data = function, len(places) > 1
        update_wrapper(self, function)
        self.name: str = function.__name__

    def __call__(self, answer: str, check: Mapping[str, Any] | None = None) -> Any:
        """What the function returns: True, False, None if it cannot tell, or one of these with a reason.

        Args:
            answer: the text.
            check: the row's `check` data; left out if the function takes one argument.
        """
        return self.function(answer, dict(check or {})) if self._takes_data else self.function(answer)

    def reference(self, folder: Path) -> Reference:
        """How a config in the run folder names this check.

        Raises:
            UsageError: it is not at the top level of its file, or a notebook's function needs what it does not contain.
        """
        from journeyman.sources.nearby import relative

        function = self.function
        if function.__qualname__ != function.__name__ or not function.__name__.isidentifier():
            raise UsageError(
                f"check {function.__qualname__!r}: it is defined inside something else",
                "Define it at the top level of its file",
            )
        path = _file_of(function)
        if path is None:
            from journeyman.api.check_source import source_of

            return Reference(f"{_FOLDER}/{self.name}.py:{self.name}", source_of(function))
        if ":" in str(path):
            raise UsageError(f"check {self.name!r}: {path}: a config cannot name a path with a colon", "Move the file")
        return Reference(f"{relative(path, folder)}:{self.name}")

    def __repr__(self) -> str:
        return f"<check {self.name}>"


def check(function: Callable[..., Any]) -> CheckFunction:
    """Registers a function as a check, under its own name. Use it as a decorator.

    The function takes the answer's text, and as a second argument, if it has one, the row's `check` data (a dict). It
    returns True, False, None if it cannot tell, or one of these with a reason: (False, "no greeting").

    Raises:
        TypeError: it is not a function, or takes other arguments.
    """
    made = CheckFunction(function)
    _registered.setdefault(made.name, {})[function.__module__] = made
    return made


def found(named: str | CheckFunction) -> CheckFunction | None:
    """The registered check of that name; None if the name is not a registered one.

    Raises:
        UsageError: several have the name, or a check of the table has it too.
    """
    if isinstance(named, CheckFunction):
        return named
    modules = _registered.get(named, {})
    if not modules:
        return None
    from journeyman.scoring.checks import JUDGE, plain_checks

    if len(modules) > 1 or named in (JUDGE, *plain_checks()):
        others = " and ".join(sorted(modules)) if len(modules) > 1 else "journeyman itself"
        raise UsageError(f"check {named!r}: {others} define it", "Name the function itself in place of its name")
    return next(iter(modules.values()))


def refuse_while_loading() -> None:
    """Raises a UsageError if this is called while a file is loaded for its checks, where no run may start."""
    from journeyman.scoring.own_function import CHECK_FILE

    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == CHECK_FILE:
            name = Path(frame.f_code.co_filename).name
            raise UsageError(
                f"{name}: it opens a run while it is loaded for its checks",
                f'Put everything in {name} that works on runs under: if __name__ == "__main__":',
            )
        frame = frame.f_back


def _file_of(function: Any) -> Path | None:
    """The file that defines the function; None for one that was typed in."""
    name = getattr(sys.modules.get(function.__module__), "__file__", None)
    if not name or not Path(name).is_file() or not Path(function.__code__.co_filename).is_file():
        return None
    return Path(name).resolve() if Path(name).samefile(function.__code__.co_filename) else None
