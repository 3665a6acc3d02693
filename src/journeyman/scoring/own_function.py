"""A user's own check: `file.py:function`, with file.py next to journeyman.toml.

The function takes the answer's text and the row's `check` data. It returns True, False, None if it cannot decide, or
one of these with a reason: (False, "too long"). It runs with the user's rights and environment, but in a child process
(bounded.py), so that an exit or an endless loop does not affect the other answers. Its output is not shown.
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
    """Loads the check `name` in this process.

    Raises:
        UsageError: no such file or function.
    """
    asked = load_function(name, folder, name)

    def check(answer: Answer) -> CheckResult:
        said = asked(answer.text, dict(answer.data))
        passed, why = said if isinstance(said, tuple) and len(said) == 2 else (said, "")
        if passed is not None and not isinstance(passed, bool):
            return CheckResult("unscored", CheckGaveOther(name, repr(passed)))
        return CheckResult(_OUTCOMES[passed], Text(text) if (text := str(why)) else None)

    return check


def load_function(place: str, folder: Path, name: str) -> Callable[..., Any]:
    """Loads the function `place` (file.py:function) in `folder`; errors call the check `name`."""
    file, _, function = place.partition(":")
    path = (folder / file).resolve()
    if not path.is_file():
        raise UsageError(
            f"check {name!r}: no file {path}", "Use file.py:function, with file.py next to journeyman.toml"
        )
    state = path.stat()
    return _load(path, function, name, (state.st_ino, state.st_size, state.st_mtime_ns))


@cache
def _load(path: Path, function: str, name: str, state: tuple[int, ...]) -> Callable[..., Any]:
    """`state` is the file's: after an edit, a long-lived process loads the new version."""
    found = runpy.run_path(str(path), run_name=CHECK_FILE).get(function)
    if not callable(found):
        raise UsageError(
            f"check {name!r}: {path.name} has no function {function!r}", f"Define it in {path.name}, or fix the name"
        )
    return found  # type: ignore[no-any-return]
