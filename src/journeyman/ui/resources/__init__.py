"""What the page can ask for. Each module has its `NAME`, under which changes are told, its `ROUTES`, and `signature`:
something that is equal as long as the data of a run are the same. A new module is added to `RESOURCES`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

from starlette.routing import Route

from journeyman.ui.context import Context
from journeyman.ui.events import LIST, Signatures
from journeyman.ui.finding import RunFolder
from journeyman.ui.resources import (
    answers,
    compare,
    curves,
    exchanges,
    findings,
    log,
    monitor,
    plan,
    releases,
    runs,
    traffic,
    verdict,
)


class Resource(Protocol):
    """A module of this package."""

    @property
    def NAME(self) -> str: ...
    @property
    def ROUTES(self) -> Sequence[Route]: ...
    @property
    def signature(self) -> Callable[[Context, RunFolder], Hashable]: ...


RESOURCES: Sequence[Resource] = (
    runs,
    plan,
    curves,
    log,
    findings,
    answers,
    verdict,
    compare,
    releases,
    traffic,
    exchanges,
    monitor,
)


def routes() -> list[Route]:
    """Of all resources."""
    return [route for one in RESOURCES for route in one.ROUTES]


def signatures(context: Context) -> Signatures:
    """Of all resources of all runs, and of the list of runs."""
    listed = context.runs.listed()
    found = {(run.id, one.NAME): _signature(one, context, run) for run in listed for one in RESOURCES}
    return {**found, (LIST, ""): (context.runs.cut, *(run.id for run in listed))}


def _signature(resource: Resource, context: Context, run: RunFolder) -> Hashable:
    try:
        return resource.signature(context, run)
    except Exception as error:  # no single run may end the changes of all; the resource itself tells what is wrong
        return type(error).__name__, str(error)
