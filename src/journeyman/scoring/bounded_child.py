"""The other end of bounded.py: a process that answers one request a line until its input ends.

The kernel ends it at a request's limits, also where the interpreter is stuck and where the parent is gone. What it
runs finds neither the pipes nor, where they are not its own, keys in the environment.
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
"""How much longer than the parent the kernel waits by the clock: the parent's reason is the better one."""


def check(request: Mapping[str, Any]) -> dict[str, Any]:
    """A check of the table. Data that it cannot use are unscored, whatever the answer and the teacher say."""
    name, data = request["name"], request["answer"]["data"]
    used = {key: data[key] for key in KEYS.get(name, {}) if key in data}
    if used and (fault := _fault(name, json.dumps(used, sort_keys=True))):
        return _reply(CheckResult("unscored", fault))
    return _said(plain_checks()[name], request)


@lru_cache(maxsize=256)
def _fault(name: str, data: str) -> Reason | None:
    """Once for the arms of a row, and for rows with the same schema."""
    found = fault_of([name], json.loads(data))
    return found and found[1]


def fault(request: Mapping[str, Any]) -> dict[str, Any]:
    """Why a row's check data cannot be used."""
    found = fault_of(request["names"], request["data"])
    return {"fault": found and plain(f"{found[0]}: {found[1].sentence()}", 300)}


def load(request: Mapping[str, Any]) -> dict[str, Any]:
    """Makes a check of the person's own ready; says why it cannot be had."""
    try:
        _own(request)
    except UsageError as error:
        return {"refused": [error.what, error.remedy]}
    return {}


def own(request: Mapping[str, Any]) -> dict[str, Any]:
    """A check of the person's own."""
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
    """The reply to one request. Whatever it raises is a reply too: SystemExit, RecursionError, MemoryError."""
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
    except BaseException:  # an error whose own text fails
        return plain(type(error).__name__, 300)


def _arm(cpu_s: float | None, wall_s: float) -> None:
    """The kernel ends this process when either is spent; 0 and None disarm."""
    for number, timer, limit in (
        (signal.SIGPROF, signal.ITIMER_PROF, cpu_s or 0),
        (signal.SIGALRM, signal.ITIMER_REAL, wall_s),
    ):
        signal.setitimer(timer, 0)
        signal.signal(number, signal.SIG_DFL)
        signal.setitimer(timer, limit)


def main() -> None:
    """Answers until the input ends; the last argument is the memory that it may take, in bytes, 0 for any."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    if memory_bytes := int(sys.argv[-1]):
        import resource

        with contextlib.suppress(ValueError, OSError):  # a system that knows no such limit
            resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies.write(b"{}\n")
    replies.flush()
    for line in requests:
        reply = json.dumps(answered(line))
        replies.write(reply.encode() + b"\n")
        replies.flush()
