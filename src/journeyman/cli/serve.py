"""`journeyman serve`: a skin over api/hosting.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from journeyman.api.hosting import hosted
from journeyman.cli.say import say
from journeyman.foreign import named


def serve_bundle(
    folder: Path,
    port: int | None,
    allow_hosts: Sequence[str] = (),
    key_env: str | None = None,
    *,
    allow_other_engine: bool = False,
    engine_url: str | None = None,
    llama_server: str | None = None,
    releases: Path | None = None,
) -> None:
    """Serves until it is stopped: by a signal, within SHUTDOWN_S.

    Raises:
        JourneymanError: as `hosted` does.
        EngineError: the engine ended, and starting it again did not help.
    """

    serving = False

    def told(text: str) -> None:
        try:
            say(text, err=True)
        except OSError:  # such as a full disk, which must end no answer and not the watch over the engine
            if not serving:  # it may be a key, which is shown only once
                raise

    with hosted(
        folder, port, allow_hosts, key_env,
        allow_other_engine=allow_other_engine, engine_url=engine_url, llama_server=llama_server, told=told,
        releases=releases,
    ) as host:  # fmt: skip
        serving = True
        told(f"serving {', '.join(map(named, host.bundle.roles))} on {host.address} (Ctrl-C stops)")
        host.run()
