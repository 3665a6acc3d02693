"""Training curves: the whole course in few points, or a part of it in more."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator
from functools import partial
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from journeyman.records import EVERY_ROLE
from journeyman.runs import PLACES
from journeyman.ui.context import Context, context_of, run_of
from journeyman.ui.curves import MOST_PARTS, Curves
from journeyman.ui.errors import NotThere
from journeyman.ui.files import State, state_of
from journeyman.ui.finding import RunFolder
from journeyman.ui.requests import answer, number

NAME = "curves"
_FILE = "metrics.jsonl"
_FOLDER = PLACES["train"].folder
_LAST_STEP = 1 << 53
_PARTS = 500


def curves(request: Request) -> Response:
    """The curves of all adapters of a run.

    Parameters: `first` and `last` step; `parts`: a curve with more than twice as many points is thinned to that.
    """
    context, run = context_of(request), run_of(request)
    first, last = number(request, "first", 0, _LAST_STEP), number(request, "last", _LAST_STEP, _LAST_STEP)
    parts = max(1, number(request, "parts", _PARTS, MOST_PARTS))
    found = []
    for name, path in files_of(run.root):
        read = context.curves.get(path, 0, partial(Curves, run.root, path.relative_to(run.root).parts))
        found.append({"adapter": name, **read.part(first, last, parts)})
    if not found:
        raise NotThere("there are no training curves yet", "They begin when training does")
    return answer({"adapters": found})


def files_of(root: Path) -> Iterator[tuple[str, Path]]:
    """Adapter and its file: one for all roles, or one in a subfolder for each role."""
    folder = root / _FOLDER
    if folder.is_symlink():
        return
    if state_of(folder / _FILE) is not None:
        yield EVERY_ROLE, folder / _FILE
    try:
        with os.scandir(folder) as entries:
            inner = sorted(one.name for one in entries if one.is_dir(follow_symlinks=False))
    except OSError:
        return
    for name in inner:
        if state_of(folder / name / _FILE) is not None:
            yield name, folder / name / _FILE


def signature(context: Context, run: RunFolder) -> Hashable:
    states: list[tuple[str, State | None]] = [(name, state_of(path)) for name, path in files_of(run.root)]
    return tuple(states)


ROUTES = (Route("/api/runs/{run}/curves", curves),)
