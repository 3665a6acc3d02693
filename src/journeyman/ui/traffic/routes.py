"""Who answers each role, and what the canaries say, as the files of the router have it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from journeyman.artifacts import hash_of
from journeyman.errors import InputError
from journeyman.routing.canaries import SUMMARY, RoleState, Summary
from journeyman.routing.modes import ROUTES, Route, RouteRecord
from journeyman.ui.files import opened, state_of

_MOST_BYTES = 32 << 20
_M = TypeVar("_M", bound=BaseModel)


def _read(root: Path, folder: str, name: str, kind: type[_M]) -> _M | None:
    path = root / folder / name
    if state_of(path) is None and not path.is_symlink():
        return None
    with opened(root, folder, name) as file:
        data = file.read(_MOST_BYTES + 1)
    try:
        if len(data) > _MOST_BYTES:
            raise ValueError(f"longer than {_MOST_BYTES >> 20} MiB")
        return kind.model_validate_json(data)
    except (ValidationError, ValueError) as error:
        raise InputError(f"{path}: damaged", "journeyman route --history") from error


def routes_of(root: Path, folder: str) -> RouteRecord:
    """The routes; empty if nothing was said yet.

    Raises:
        ChangedArtifact, InputError: the file is a link, or damaged.
    """
    return _read(root, folder, ROUTES, RouteRecord) or RouteRecord()


def canaries_of(root: Path, folder: str) -> dict[str, dict[str, Any]]:
    """Role → what is known of its trial; raises as routes_of."""
    found = _read(root, folder, SUMMARY, Summary)
    try:
        return {} if found is None else {role: _trial(one) for role, one in found.roles.items()}
    except (ValidationError, ValueError) as error:
        raise InputError(f"{root / folder / SUMMARY}: damaged", "Start the recorder again") from error


def _trial(given: dict[str, Any]) -> dict[str, Any]:
    state = RoleState.model_validate(given)
    return {**state.model_dump(mode="json", exclude={"test", "reason"}), "why": str(given.get("why") or "")}


def id_of(role: str) -> str:
    """Names a role in a request: names are shown in a form that is safe, and different ones must not be confused."""
    return hashlib.sha256(role.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def state_of_route(route: Route | None) -> str:
    """Equal as long as the route is the same one."""
    return "" if route is None else str(hash_of(route.model_dump(mode="json")))
