"""The child process of bounded.py: answers one request per line until its input ends.

The kernel kills it at a request's limits, even if the interpreter is stuck or the parent is gone. The code that it runs
has no access to the pipes, and sees the keys in the environment only if it is the user's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from journeyman.errors import UsageError
from journeyman.foreign import plain
from journeyman.reasons import Reason
from journeyman.records import ToolCall
from journeyman.scoring.checks import plain_checks
from journeyman.scoring.contracts import Answer, Check, CheckResult, Limits
from journeyman.scoring.inspect_scorer import PREFIX, load_scorer
from journeyman.scoring.own_function import load_check
from journeyman.scoring.row_data import KEYS, fault_of

_REAL_MORE_S = 5.0
"""How much longer than the parent the kernel waits, in wall time, because the parent reports a better reason."""


def check(request: Mapping[str, Any]) -> dict[str, Any]:
    """Runs a built-in check. If it cannot use the row's data, the answer is unscored, regardless of its content."""
    name, data = request["name"], request["answer"]["data"]
    used = {key: data[key] for key in KEYS.get(name, {}) if key in data}
    if used and (fault := _fault(name, json.dumps(used, sort_keys=True))):
        return _reply(CheckResult("unscored", fault))
    return _said(plain_checks()[name], request)


@lru_cache(maxsize=256)
def _fault(name: str, data: str) -> Reason | None:
    """Cached for all arms of a row and for rows with the same schema."""
    found = fault_of([name], json.loads(data))
    return found and found[1]


def fault(request: Mapping[str, Any]) -> dict[str, Any]:
    """Says why a row's check data cannot be used."""
    found = fault_of(request["names"], request["data"])
    return {"fault": found and plain(f"{found[0]}: {found[1].sentence()}", 300)}


def load(request: Mapping[str, Any]) -> dict[str, Any]:
    """Loads a user's own check, or says why it cannot be loaded."""
    try:
        _own(request)
    except UsageError as error:
        return {"refused": [error.what, error.remedy]}
    return {}


def own(request: Mapping[str, Any]) -> dict[str, Any]:
    """Runs a user's own check."""
    return _said(_own(request), request)


REQUESTS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    made.__name__: made for made in (check, fault, load, own)
}


def _own(request: Mapping[str, Any]) -> Check:
    name, folder = request["name"], Path(request["folder"])
    file = name.removeprefix(PREFIX).partition(":")[0]
    place = str((folder / file).resolve().parent)
    if ":" in name.removeprefix(PREFIX) and place not in sys.path:
        sys.path.append(place)  # a script imports the files next to it; last, so that they hide no other module
    return load_scorer(name, folder) if name.startswith(PREFIX) else load_check(name, folder)


def _said(made: Check, request: Mapping[str, Any]) -> dict[str, Any]:
    answer = dict(request["answer"])
    for name in ("calls", "reference_calls"):
        answer[name] = [ToolCall.model_validate(one) for one in answer[name]]
    answer["limits"] = Limits(**answer["limits"])
    return _reply(made(Answer(**answer)))


def _reply(finding: CheckResult) -> dict[str, Any]:
    reason = finding.safe().reason
    return {"outcome": finding.outcome, "reason": None if reason is None else reason.record().model_dump()}


def answered(line: bytes) -> dict[str, Any]:
    """The reply to one request. Every exception becomes a reply too: SystemExit, RecursionError, MemoryError."""
    try:
        request = json.loads(line)
        _arm(request["cpu_s"], request["wall_s"] + _REAL_MORE_S)
        return REQUESTS[request["do"]](request)
    except BaseException as error:
        return {"raised": _message(error)}
    finally:
        _arm(None, 0)


def _message(error: BaseException) -> str:
    try:
        return plain(f"{type(error).__name__}: {error}", 300)
    except BaseException:  # str() of this error fails
        return plain(type(error).__name__, 300)


def _arm(cpu_s: float | None, wall_s: float) -> None:
    """Sets the timers at which the kernel kills this process; 0 and None disarm them."""
    for number, timer, limit in (
        (signal.SIGPROF, signal.ITIMER_PROF, cpu_s or 0),
        (signal.SIGALRM, signal.ITIMER_REAL, wall_s),
    ):
        signal.setitimer(timer, 0)
        signal.signal(number, signal.SIG_DFL)
        signal.setitimer(timer, limit)


def main() -> None:
    """Answers requests until the input ends. The last argument is the memory limit in bytes, 0 for none."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    if memory_bytes := int(sys.argv[-1]):
        import resource

        with contextlib.suppress(ValueError, OSError):  # a system without this limit
            resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies.write(b"{}\n")
    replies.flush()
    for line in requests:
        reply = json.dumps(answered(line))
        replies.write(reply.encode() + b"\n")
        replies.flush()
