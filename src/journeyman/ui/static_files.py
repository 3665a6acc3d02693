"""The page's own files. They are few and small, so they are read once; a path is looked up, never opened."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response

from journeyman.ui.errors import NotThere

_TYPES = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml", ".LICENSE": "text/plain; charset=utf-8",
}  # fmt: skip
"""Not the system's table, in which scripts may have a type that browsers refuse."""


def read_static() -> dict[str, Response]:
    """Path of a URL → its file."""
    found = {f"/{name}": file for name, file in _below(resources.files("journeyman.ui") / "static", "")}
    made = {path: _response(path, file.read_bytes()) for path, file in found.items()}
    return {**made, "/": made["/index.html"]}


def _below(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for one in folder.iterdir():
        if one.is_dir():
            found += _below(one, f"{prefix}{one.name}/")
        elif any(one.name.endswith(ending) for ending in _TYPES):
            found.append((f"{prefix}{one.name}", one))
    return found


def _response(path: str, data: bytes) -> Response:
    kind = next(kind for ending, kind in _TYPES.items() if path.endswith(ending))
    return Response(data, media_type=kind)


async def static(request: Request) -> Response:
    """The file of a URL; raises NotThere."""
    files: dict[str, Response] = request.app.state.static
    if request.url.path not in files:
        raise NotThere("there is no such page", "Open the address that the terminal shows")
    return files[request.url.path]
