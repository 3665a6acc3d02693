"""What Ray raises, in one line for the user."""

from __future__ import annotations

import re
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from journeyman.errors import DiskFull
from journeyman.foreign import plain

_MOST_CAUSE = 300
_NODE = re.compile(r"\bip[=:] ?([0-9A-Fa-f.:]*[0-9A-Fa-f])")


def stored(what: Any) -> Any:
    """A reference to it in the object store of this machine's node."""
    try:
        return ray.put(what)
    except RayError as error:
        raise DiskFull(
            f"the object store of the cluster on this machine takes no more: {cause_of(error)}",
            "Free disk space in Ray's temporary folder, or start the node with a larger --object-store-memory",
        ) from error


def cannot_start(error: RayError) -> bool:
    """Whether the worker itself failed, so that another one would too."""
    return isinstance(error, RayTaskError) or (isinstance(error, RayActorError) and error.actor_init_failed)


def cause_of(error: RayError) -> str:
    """One line, with the node if Ray names it."""
    text = str(error)
    lines = [plain(line.strip(), _MOST_CAUSE) for line in text.splitlines() if line.strip()]
    traceback = isinstance(error, RayTaskError) or cannot_start(error)
    said = lines[-1 if traceback else 0] if lines else type(error).__name__
    node = _NODE.search(text)
    return f"node {node[1]}: {said}" if node else said
