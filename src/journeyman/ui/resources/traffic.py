"""The traffic of a run: who answers which role, how it goes, and the change of a route."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from journeyman.api.routing import RouteChanged, change_route
from journeyman.config import CONFIG_NAME, RouteMode
from journeyman.errors import ChangedMeanwhile, JourneymanError
from journeyman.foreign import named
from journeyman.routing.assessing import CONVERSATIONS, EXCHANGES
from journeyman.routing.canaries import SUMMARY
from journeyman.routing.modes import ROUTES as ROUTES_FILE
from journeyman.routing.modes import RouteEvent, RouteRecord
from journeyman.ui.context import Context, context_of, run_of
from journeyman.ui.errors import BadRequest, NotMade, NotThere
from journeyman.ui.files import state_of
from journeyman.ui.finding import RunFolder
from journeyman.ui.requests import answer, body_of, choice
from journeyman.ui.traffic.buckets import SPANS, shortest, starts
from journeyman.ui.traffic.names import OTHERS, Names
from journeyman.ui.traffic.places import Places, refuse_links
from journeyman.ui.traffic.routes import canaries_of, id_of, routes_of, state_of_route
from journeyman.ui.traffic.state import RunTraffic

NAME = "traffic"
_MOST_EVENTS = 200
MODES: tuple[RouteMode, ...] = ("teacher", "shadow", "canary", "fallback", "student")


def traffic(request: Request) -> Response:
    """All roles. Parameter: `span`, one of buckets.SPANS; without it, the shortest that shows everything."""
    context, run = context_of(request), run_of(request)
    span = choice(request, "span", tuple(SPANS))
    places = context.traffic.places(run.root)
    problems = [places.problem] if places.problem else []
    record, trials = RouteRecord(), dict[str, dict[str, Any]]()
    try:
        record, trials = routes_of(run.root, places.routing), canaries_of(run.root, places.routing)
    except JourneymanError as error:
        problems.append(f"{error.what}. {error.remedy}")
    known = context.traffic.of(run.root)
    read = known.read()
    if not (record.roles or trials or read["of"]):
        recorded = context.traffic.recorded(run.root)
        if not recorded["rows"]:
            raise NotMade("nothing was recorded in this run", "Run: journeyman record --upstream URL")
        return answer({"recorded": recorded, "problems": problems})
    with known.exchanges.file.lock, known.conversations.file.lock:
        roles, when, span = _roles(known, record, trials, places, span)
        listed, cut = len(known.exchanges), known.exchanges.roles.cut
    events = [_event(one) for one in reversed(record.events[-_MOST_EVENTS:])]
    return answer({
        "recorded": None, "problems": problems, "read": read, "span": span, "spans": list(SPANS), "starts": when,
        "width_s": SPANS[span][0], "roles": roles, "exchanges": listed, "roles_cut": cut, "student": places.student,
        "events": events, "all_events": len(record.events),
    })  # fmt: skip


def _roles(
    known: RunTraffic, record: RouteRecord, trials: dict[str, dict[str, Any]], places: Places, span: str | None
) -> tuple[list[dict[str, Any]], list[int], str]:
    """Each role's figures, and the beginnings of the buckets of all."""
    exchanges, conversations = known.exchanges, known.conversations
    counts = _by_name(exchanges.roles, exchanges.by_role)
    ended = _by_name(conversations.roles, conversations.by_role)
    everything = [one.buckets for one in (*counts.values(), *ended.values())]
    last = max((one.last for one in everything), default=-1)
    first = min((one.first for one in everything if one.first >= 0), default=-1)
    whole = span is None
    span = span or shortest(first, last)
    when = starts(span, last)
    cut = sum(one + SPANS[span][0] <= first * 60 for one in when) if whole else 0
    names = sorted({*record.roles, *trials, *places.roles, *(one for one in (*counts, *ended) if one is not None)})
    found = []
    for role in [*names, *([None] if None in counts or None in ended else [])]:
        route = None if role is None else record.roles.get(role)
        of, over = counts.get(role), ended.get(role)
        found.append({
            "id": None if role is None else id_of(role), "role": "other roles" if role is None else named(role),
            "number": None if role is None else exchanges.roles.known(role) or None,
            "route": route and route.model_dump(mode="json"), "state": state_of_route(route),
            "trial": trials.get(role) if role is not None else None,
            "traffic": of and {**of.as_json(), "series": of.buckets.series(span, last, cut)},
            "conversations": over and {**over.as_json(), "series": over.buckets.series(span, last, cut)},
        })  # fmt: skip
    return found, when[cut:], span


def _by_name(names: Names, values: dict[int, Any]) -> dict[str | None, Any]:
    """Name of a role → its counts; None: of those that are too many."""
    return {None if number == OTHERS else names.all[number]: value for number, value in values.items()}


def _event(one: RouteEvent) -> dict[str, Any]:
    return {**one.model_dump(mode="json"), "role": named(one.role)}


async def change(request: Request) -> Response:
    """Changes a role's route, if it still is the one in `state`; `share` counts in a canary only.

    `role` is an id as `traffic` gives it.
    """
    body = await body_of(request, role=str, state=str, mode=str, share=float, why=str)
    context, run = context_of(request), run_of(request)
    if body["mode"] not in MODES:
        raise BadRequest(f"mode: not one of {', '.join(MODES)}")

    def work() -> dict[str, Any]:
        places = context.traffic.places(run.root)
        refuse_links(run.root, places.routing)
        if places.problem:
            raise BadRequest(places.problem)
        record = routes_of(run.root, places.routing)
        role = _role_of(context, run.root, record, places, body["role"])
        route = record.roles.get(role)
        changed = ChangedMeanwhile(
            f"{named(role)}: its route is another one now", "Look at it again before you change it"
        )
        if state_of_route(route) != body["state"]:
            raise changed
        share = body["share"] if body["mode"] == "canary" else None
        try:
            made = change_route(run.root, role, body["mode"], share, body["why"].strip()[:500], only_from=route)
        except RouteChanged as error:
            raise changed from error
        return {"role": named(role), "mode": made.mode, "share": made.share}

    return answer(await anyio.to_thread.run_sync(work))


def _role_of(context: Context, root: Path, record: RouteRecord, places: Places, role_id: str) -> str:
    known = context.traffic.of(root).exchanges
    with known.file.lock:
        seen = known.roles.all[1:]
    for role in (*record.roles, *places.roles, *seen):
        if id_of(role) == role_id:
            return role
    raise NotThere("there is no such role any more", "Look again")


def signature(context: Context, run: RunFolder) -> Hashable:
    places = context.traffic.places(run.root)
    folder = run.root / places.routing
    states = tuple(state_of(folder / name) for name in (ROUTES_FILE, SUMMARY, EXCHANGES, CONVERSATIONS))
    config = state_of(run.root / CONFIG_NAME)
    return (config, *states, None if any(states) else context.traffic.newest_state(run.root))


ROUTES = (
    Route("/api/runs/{run}/traffic", traffic),
    Route("/api/runs/{run}/route", change, methods=["POST"]),
)
