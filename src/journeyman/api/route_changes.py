"""Changes of the routes while a recorder runs: by a command, by the config file, by another bundle of the student."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from multidict import CIMultiDict

from journeyman.config import Config, RouteMode, load_config
from journeyman.errors import JourneymanError
from journeyman.foreign import named, plain
from journeyman.gateway.forwarding import Forwarder, Target, Unanswered
from journeyman.keys import bearer
from journeyman.routing.modes import RouteEvent, RouteFollower, back_to_shadow, configured

_LOOK_S, _ASK_S = 1.0, 3.0


class RouteChanges:
    """Keeps `routes` up to date.

    Args:
        folder: of the routes.
        config_path: of the settings, which `config` has as they are at the start.
        told: hears of changes and errors.
    """

    def __init__(
        self, folder: Path, config_path: Path, config: Config, routes: RouteFollower, told: Callable[[str], None]
    ) -> None:
        self._folder, self._path, self._config, self._routes, self._told = folder, config_path, config, routes, told
        self._bundle = ""

    def begin(self) -> None:
        """Takes over what the settings say at the start.

        Raises:
            JourneymanError: the routes are damaged, or cannot be written.
        """
        self._take_config(self._config)
        self._routes.look()

    async def follow_files(self) -> None:
        """Takes over what the files of the routes and the settings say."""
        state, config, said = _state(self._path), self._config, ""
        pending = False
        while True:
            try:
                self._routes.look()
                if (now := _state(self._path)) != state:
                    state, pending = now, False
                    config, pending = load_config(self._path), True
                if pending:
                    self._take_config(config, self._bundle)
                    pending = False
                    self._routes.look()
                said = ""
            except Exception as error:  # without this task, no change would be taken over
                said = self._warn(error, said)
            await asyncio.sleep(_LOOK_S)

    async def follow_student(self, forward: Forwarder, student: Target, key: str | None) -> None:
        """Asks the student what it serves; its port may take long to say so."""
        said = ""
        while True:
            try:
                found = await _bundle_of(forward, student, key)
                if found and found != self._bundle:
                    self._tell(await asyncio.to_thread(back_to_shadow, self._folder, found))
                    self._bundle = found
                    self._routes.look()
                said = ""
            except Exception as error:
                said = self._warn(error, said)
            await asyncio.sleep(_ASK_S)

    def _warn(self, error: Exception, said: str) -> str:
        """Tells of an error, unless that was said last."""
        text = str(error) if isinstance(error, JourneymanError | OSError) else f"{type(error).__name__}: {error}"
        if text != said:
            self._told(f"warning: {plain(text, 500)}")
        return text

    def _take_config(self, config: Config, bundle: str = "") -> None:
        asked: dict[str, tuple[RouteMode, float]] = {
            role: (one.mode, one.share) for role, one in config.route.roles.items()
        }
        self._tell(configured(self._folder, asked, bundle))

    def _tell(self, events: list[RouteEvent]) -> None:
        for one in events:
            self._told(event_line(one))


def event_line(one: RouteEvent) -> str:
    """A change in a line."""
    share = f" {one.share:.0%} of conversations" if one.mode == "canary" else ""
    why = f": {plain(one.why, 200)}" if one.why else ""
    change = f"{named(one.role)} {one.before or 'new'} -> {one.mode}"
    return f"{one.at} {plain(one.who, 60)} {one.action.replace('_', ' ')}: {change}{share}{why}"


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns)


async def _bundle_of(forward: Forwarder, student: Target, key: str | None) -> str:
    """What the student serves now; "" if it does not say."""
    headers = CIMultiDict[str]({} if key is None else bearer(key))
    try:
        async with asyncio.timeout(5.0):
            got = await forward.send(student, "GET", "/ready", headers, b"")
            try:
                data = b"".join([piece async for piece in forward.pieces(got)]) if got.status == 200 else b""
            finally:
                got.release()
        found = json.loads(data) if data else {}
    except (Unanswered, TimeoutError, ValueError):
        return ""
    bundle = found.get("bundle") if isinstance(found, dict) else None
    return bundle if isinstance(bundle, str) else ""
