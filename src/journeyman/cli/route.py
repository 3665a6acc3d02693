"""`journeyman route`: who answers the requests of a role; a skin over api/routing.py."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from journeyman.api.route_changes import event_line
from journeyman.api.routing import change_route, routing_folder
from journeyman.artifacts import read_model
from journeyman.cli.say import say, say_json
from journeyman.config import RouteMode, config_in
from journeyman.errors import UsageError
from journeyman.foreign import named, plain
from journeyman.routing.canaries import SUMMARY, Summary
from journeyman.routing.modes import Route, record_of


def run(
    folder: Path, role: str | None, mode: str | None, *, share: float | None, why: str, history: bool, as_json: bool
) -> None:
    """Prints the routes, or changes one.

    Raises:
        UsageError: there is no such mode, or no student.
        JourneymanError: the routes cannot be read or written.
    """
    if role is not None and mode is not None:
        modes: tuple[RouteMode, ...] = get_args(RouteMode)
        chosen = next((one for one in modes if one == mode), None)
        if chosen is None:
            raise UsageError(f"{plain(mode, 40)!r} is no mode", f"One of: {', '.join(modes)}")
        made = change_route(folder, role, chosen, share, why)
        say(f"{named(role)}: {described(made)}")
        return
    place = routing_folder(folder, config_in(folder))
    record = record_of(place)
    if role is not None and role not in record.roles:
        raise UsageError(f"{named(role)}: nothing was said about this role", f"journeyman route {role} shadow")
    if as_json:
        say_json(record.model_dump(mode="json"))
        return
    shown = {name: one for name, one in record.roles.items() if role in (None, name)}
    for name, one in sorted(shown.items()):
        say(f"{named(name)}: {described(one)}, since {one.since}")
        for line in summary_lines(place, name, one):
            say(f"  {line}")
    if not shown:
        say("the upstream answers every role; to compare a student: journeyman route ROLE shadow")
    if history or role is not None:
        for event in record.events:
            if role in (None, event.role):
                say(event_line(event))


def summary_lines(folder: Path, role: str, route: Route) -> list[str]:
    """What the trial of a route has shown so far."""
    path = folder / SUMMARY
    found = read_model(path, Summary).roles.get(role) if path.is_file() else None
    if found is None or found["trial"] != route.trial:
        return []
    lines = [plain(found["why"], 300)] if found["why"] else []
    if count := found["conversations"]:
        ignored = f", {found['ignored']} exchanges of ids that had counted" if found["ignored"] else ""
        lines.append(f"{count} conversations, {found['unscored']} of which nothing says how they went{ignored}")
    pairs = found["pairs"]
    if sum(pairs.values()):
        lines.append(
            f"pairs: both passed {pairs['both']}, only the teacher {pairs['teacher_only']}, only the student "
            f"{pairs['student_only']}, neither {pairs['neither']}, unscored {pairs['unscored']}"
        )
    return lines


def described(route: Route) -> str:
    """A route in words."""
    if route.mode == "canary":
        return f"canary, {route.share:.0%} of conversations to the student"
    return route.mode
