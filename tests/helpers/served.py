"""A server on a tiny model in a separate process: `python served.py BASE` prints its port and the engine's pid."""

from __future__ import annotations

import sys
from pathlib import Path

from journeyman.api.hosting import Host, open_listener
from journeyman.inference.engines import running_engine
from journeyman.manifests import BundleManifest
from journeyman.protocols import EngineSettings

CONTEXT = 32_768


def tiny_bundle() -> BundleManifest:
    """A service for one role, coder, without an adapter."""
    return BundleManifest.model_construct(
        roles=["coder"],
        system_prompts={"coder": "You are a coder."},
        redact={"secrets": True, "personal": True},
        settings={"temperature": 0.0, "max_new_tokens": 64, "context": CONTEXT, "threads": 1, "parallel": 1},
    )


def main(base: Path) -> None:
    listener = open_listener("127.0.0.1", 0)
    with running_engine(EngineSettings(base, {}, CONTEXT, 1, 0.0)) as engine:
        print(listener.getsockname()[1], engine._process.pid, flush=True)
        Host(tiny_bundle(), engine, listener, lambda text: print(text, file=sys.stderr, flush=True)).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
