"""`journeyman promote`, `rollback` and `releases`: skins over promotion.py."""

from __future__ import annotations

from pathlib import Path

from journeyman.cli.say import say, say_json
from journeyman.errors import UsageError
from journeyman.foreign import named
from journeyman.manifests import ReleaseEvent
from journeyman.promotion import promote, rollback, why_not_deployable
from journeyman.releases import Release, kept, record_of, releases_of


def promote_bundle(source: Path, folder: Path | None, why: str, override: str | None) -> None:
    """Raises as promotion.promote and releases_of do, and UsageError if the reason of the override is empty."""
    if override is not None and not override.strip():
        raise UsageError("--override: the reason is empty", 'Give one: --override "pilot with human review"')
    release = promote(source, folder or releases_of(source), why, override)
    if override is not None and not why_not_deployable(release.manifest):
        say("--override had no effect and is not recorded: the verdict is deploy", err=True)
    _say_current(release)


def roll_back(source: Path, folder: Path | None, to: int | None, why: str) -> None:
    """Raises as promotion.rollback and releases_of do."""
    _say_current(rollback(folder or releases_of(source), to, why))


def print_releases(source: Path, folder: Path | None, as_json: bool) -> None:
    """One line for each event, oldest first, then what is kept and current; raises as record_of and releases_of do."""
    place = folder or releases_of(source)
    record = record_of(place)
    if as_json:
        say_json({"folder": str(place), "kept": kept(place), **record.model_dump()})
        return
    for event in record.events:
        say(_line(event))
    numbers = ", ".join(map(str, kept(place))) or "none"
    say(f"{place}: kept {numbers}; current {'none' if record.current is None else record.current}")


def _line(event: ReleaseEvent) -> str:
    verdicts = ", ".join(f"{named(role)} {event.verdicts.get(role, 'not known')}" for role in event.roles)
    why = f": {event.why}" if event.why else ""
    override = f"; despite the verdict: {event.override}" if event.override else ""
    was = "" if event.before is None else f" (was {event.before})"
    return f"{event.at} {event.who} {event.action} {event.number}{was}{why} [{verdicts}]{override}"


def _say_current(release: Release) -> None:
    say(f"{release.place}: release {release.number} is current ({', '.join(map(named, release.manifest.roles))})")
