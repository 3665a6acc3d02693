"""The end of journeyman.log."""

from __future__ import annotations

from collections.abc import Hashable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from journeyman.supervision.log import LOG, last_lines
from journeyman.ui.context import Context, run_of
from journeyman.ui.files import state_of
from journeyman.ui.finding import RunFolder
from journeyman.ui.requests import answer, number

NAME = "log"
_MOST = 200


def log(request: Request) -> Response:
    """The last lines. Parameter: `lines`."""
    root = run_of(request).root
    there = state_of(root / LOG) is not None
    return answer({"lines": last_lines(root, number(request, "lines", 40, _MOST)) if there else []})


def signature(context: Context, run: RunFolder) -> Hashable:
    return state_of(run.root / LOG)


ROUTES = (Route("/api/runs/{run}/log", log),)
