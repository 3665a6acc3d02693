"""Serves the current release, and each that becomes current."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from starlette.applications import Starlette

from journeyman.api.prepared import prepared
from journeyman.config import ServeConfig
from journeyman.errors import UsageError
from journeyman.foreign import named
from journeyman.inference.engines import start_engine
from journeyman.manifests import BundleManifest
from journeyman.protocols import ServedEngine
from journeyman.releases import Follower, Release, current
from journeyman.serving.switching import Next

Make = Callable[[BundleManifest, ServedEngine, Callable[[], None]], Starlette]


def released(folder: Path) -> Release:
    """The current release; raises as releases.current does, and UsageError if nothing was promoted yet."""
    release = current(folder)
    if release is None:
        raise UsageError(
            f"{folder}: nothing was promoted", f"Run: journeyman promote RUN --releases {shlex.quote(str(folder))}"
        )
    return release


class Following:
    """Makes the application of each release that becomes current; see SwitchingApp.

    Attributes:
        served: the release that new requests go to.
    """

    def __init__(
        self,
        folder: Path,
        known: Release,
        config: ServeConfig,
        allow_other_engine: bool,
        told: Callable[[str], None],
    ) -> None:
        self._folder, self._config, self.served = folder, config, known
        self._follower = Follower(folder, known)
        self._allow_other_engine, self._told = allow_other_engine, told

    def if_served(self, act: Callable[[], None]) -> Callable[[], None]:
        """Does something only as long as the release that is served now is served."""
        return self._if_served(self.served, act)

    def _if_served(self, mine: Release, act: Callable[[], None]) -> Callable[[], None]:
        return lambda: act() if self.served is mine else None

    def application(self, make: Make, given_up: Callable[[], None]) -> Next | None:
        """The application of a release that has become current; None if there is none.

        A release that failed is tried again when it is promoted again. One that is no longer current when it has
        loaded does not take over; the next call sees the one that is.

        Args:
            make: from a bundle, its engine, and what to do if the engine is given up.
            given_up: called when the engine of the release that is served then is given up.

        Raises:
            JourneymanError: as hosting.hosted does.
        """
        release = self._follower.changed()
        if release is None:
            return None
        try:
            bundle, settings = prepared(release.place, self._config, self._allow_other_engine, self._told)
            engine = start_engine(settings)
            try:
                app = make(bundle, engine, self._if_served(release, given_up))
                now = current(self._folder)
            except BaseException:
                engine.stop()
                raise
        except BaseException:
            self._follower.still(self.served)
            raise
        if now is None or now.sha256 != release.sha256:  # such as after a rollback
            engine.stop()
            self._follower.still(self.served)
            return None

        def took_over() -> None:
            self.served = release
            self._told(f"release {release.number} takes over: {', '.join(map(named, bundle.roles))}")

        def abandon() -> None:
            self._follower.still(self.served)
            engine.stop()

        return Next(app, took_over, abandon)
