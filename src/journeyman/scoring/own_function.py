"""A check of the person's own: `file.py:function` beside journeyman.toml.

The function takes the answer's text and the row's `check` data, and gives True, False, None where it cannot tell,
or one of these with a reason: (False, "too long"). It is the person's own code: it runs with the person's rights and
environment, but in a child process (bounded.py), so that neither an exit nor a loop without end holds up the others.
What it prints is not shown.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from journeyman.errors import UsageError
from journeyman.reasons import Text
from journeyman.reasons.checking import CheckGaveOther
from journeyman.scoring.contracts import Answer, Check, CheckResult, Outcome

_OUTCOMES: Mapping[bool | None, Outcome] = {True: "pass", False: "fail", None: "unscored"}


CHECK_FILE = "journeyman_check_file"
"""The __name__ of a file that is loaded for its checks."""


def load_check(name: str, folder: Path) -> Check:
    """The check that `name` stands for, in this process.

    Raises:
        UsageError: no such file or function.
    """
    asked = load_function(name, folder, name)

    def check(answer: Answer) -> CheckResult:
        said = asked(answer.text, dict(answer.data))
        verdict, why = said if isinstance(said, tuple) and len(said) == 2 else (said, "")
        if verdict is not None and not isinstance(verdict, bool):
            return CheckResult("unscored", CheckGaveOther(name, repr(verdict)))
        return CheckResult(_OUTCOMES[verdict], Text(text) if (text := str(why)) else None)

    return check


def load_function(place: str, folder: Path, name: str) -> Callable[..., Any]:
    """What `place`, a file.py:function below `folder`, stands for; `name` is the check in errors."""
    file, _, function = place.partition(":")
    path = (folder / file).resolve()
    if not path.is_file():
        raise UsageError(f"check {name!r}: no file {path}", "Write it as file.py:function, beside journeyman.toml")
    state = path.stat()
    return _load(path, function, name, (state.st_ino, state.st_size, state.st_mtime_ns))


@cache
def _load(path: Path, function: str, name: str, state: tuple[int, ...]) -> Callable[..., Any]:
    """`state` is the file's: a notebook that changes a check gets the new one from a process that has the old one."""
    found = runpy.run_path(str(path), run_name=CHECK_FILE).get(function)
    if not callable(found):
        raise UsageError(f"check {name!r}: {path.name} has no function {function!r}", "Write it as file.py:function")
    return found  # type: ignore[no-any-return]
