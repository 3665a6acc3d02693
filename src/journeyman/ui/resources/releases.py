"""Releases: which one is current, how it came to be, and promote and roll back as the commands do."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from journeyman.artifacts import MANIFEST
from journeyman.bundles import open_bundle
from journeyman.errors import ChangedArtifact, JourneymanError
from journeyman.foreign import named
from journeyman.promotion import Seen, promote, rollback, why_not_deployable
from journeyman.releases import RECORD, kept, listing, record_of, releases_of
from journeyman.runs import PLACES
from journeyman.ui.context import Context, context_of, run_of
from journeyman.ui.errors import BadRequest, NotThere
from journeyman.ui.files import state_of
from journeyman.ui.finding import RunFolder
from journeyman.ui.requests import answer, body_of

NAME = "releases"


def releases(request: Request) -> Response:
    """The folders with releases of all runs, and the bundles that may be promoted to each."""
    context = context_of(request)
    found: dict[Path, dict[str, Any]] = {}
    problems = []
    for run in context.runs.listed():
        try:
            folder = _releases_of(run)
            entry = found.get(folder) or _folder(folder)
            bundle = _bundle(context, run)
        except JourneymanError as error:
            problems.append(str(error))
            continue
        if bundle is not None:
            entry["bundles"].append(bundle)
        if entry["events"] or entry["bundles"]:
            found[folder] = entry
    return answer({"folders": list(found.values()), "problems": list(dict.fromkeys(problems))})


def _releases_of(run: RunFolder) -> Path:
    """The folder with the run's releases, which may lie next to the run.

    Raises:
        ChangedArtifact: it, its record or one of the releases is a link.
        UsageError: there are two.
    """
    folder = releases_of(run.root)
    releases = (path for path in folder.glob("*") if path.name.isdecimal())
    link = next((path for path in (folder, folder / RECORD, *releases) if path.is_symlink()), None)
    if link is not None:
        raise ChangedArtifact(
            f"{link}: a link, which the page does not follow", f"Use the commands instead: {listing(folder)}"
        )
    return folder


def _folder(folder: Path) -> dict[str, Any]:
    record = record_of(folder)
    return {
        "id": _id_of(folder), "path": str(folder), "current": record.current, "kept": kept(folder),
        "events": [_event(one.model_dump()) for one in record.events], "bundles": [],
    }  # fmt: skip


def _event(event: dict[str, Any]) -> dict[str, Any]:
    verdicts = {named(role): verdict for role, verdict in event["verdicts"].items()}
    return {**event, "roles": list(map(named, event["roles"])), "verdicts": verdicts}


def _bundle(context: Context, run: RunFolder) -> dict[str, Any] | None:
    """A run's bundle; None if it has none."""
    if context.manifests.of(run.root, "export") is None:
        return None
    opened = open_bundle(run.root)
    return {
        "run": run.id, "name": run.name, "made": opened.stamp.created, "sha256": opened.sha256,
        "roles": list(map(named, opened.manifest.roles)),
        "verdicts": {named(role): one for role, one in opened.manifest.verdicts.items()},
        "refused": why_not_deployable(opened.manifest),
    }  # fmt: skip


def _id_of(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]


async def promote_run(request: Request) -> Response:
    """Promotes the run's bundle with this `sha256`, if `current` still is the current release; 0: none is.

    `override` is "" for none.
    """
    body = await body_of(request, sha256=str, current=int, why=str, override=str)
    run = run_of(request)

    def work() -> dict[str, Any]:
        folder = _releases_of(run)
        seen = Seen(body["current"] or None, body["sha256"])
        release = promote(run.root, folder, body["why"].strip(), body["override"].strip() or None, seen)
        return {"number": release.number, "place": str(release.place)}

    return answer(await anyio.to_thread.run_sync(work))


async def roll_back(request: Request) -> Response:
    """Makes release `to` current again, if `current` still is the current one."""
    body = await body_of(request, to=int, current=int, why=str)
    context, folder_id = context_of(request), request.path_params["folder"]

    def work() -> dict[str, Any]:
        folder = _folder_of(context, folder_id)
        if body["to"] < 1:
            raise BadRequest(f"to: {body['to']} is no release")
        release = rollback(folder, body["to"], body["why"].strip(), Seen(body["current"]))
        return {"number": release.number, "place": str(release.place)}

    return answer(await anyio.to_thread.run_sync(work))


def _folder_of(context: Context, folder_id: str) -> Path:
    for run in context.runs.listed():
        try:
            folder = _releases_of(run)
        except JourneymanError:
            continue
        if _id_of(folder) == folder_id:
            return folder
    raise NotThere("there is no such folder with releases any more", "Look again")


def signature(context: Context, run: RunFolder) -> Hashable:
    try:
        record = state_of(_releases_of(run) / RECORD)
    except (JourneymanError, OSError):
        record = None
    return record, state_of(run.root / PLACES["export"].folder / MANIFEST)


ROUTES = (
    Route("/api/releases", releases),
    Route("/api/releases/{folder}/rollback", roll_back, methods=["POST"]),
    Route("/api/runs/{run}/promote", promote_run, methods=["POST"]),
)
