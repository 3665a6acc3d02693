"""The control groups of this process (Linux), in which containers and services have their limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where control groups are mounted, version 2 or 1, and the file that names the groups of this process."""


def folders(controller: str, groups: Path = GROUPS, own: Path = OWN) -> Iterator[tuple[Path, int]]:
    """The folders of this process's group for a controller, and of all groups around it, each with its version, 1 or 2.

    They come from the innermost to the root of the mount. In a container, `own` may name a path of the host that is not
    visible: the root is then the container's group.
    """
    version = 1 if (groups / controller).is_dir() else 2
    root = groups / controller if version == 1 else groups
    folder = root / _path(own, controller if version == 1 else "").lstrip("/")
    while folder != root and root in folder.parents:
        if folder.is_dir():
            yield folder, version
        folder = folder.parent
    yield root, version


def _path(own: Path, controller: str) -> str:
    """The path of this process's group; "" is the controller of version 2."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return ""
    parts = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    return next((path for _, names, path in parts if controller in names.split(",") and ".." not in path), "")
