"""`journeyman serve`: checks the bundle's files against their hashes, starts the engine and opens the port."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from journeyman.cli.say import say
from journeyman.config import CONFIG_NAME, ServeConfig, load_config
from journeyman.errors import EngineError, UsageError
from journeyman.foreign import named
from journeyman.inference.engines import engine_identity, running_engine
from journeyman.lineage import check_files
from journeyman.manifests import BundleManifest
from journeyman.protocols import EngineSettings, ServedEngine
from journeyman.runs import place_of, read_result, typed_result
from journeyman.serving.app import conversation_of, make_app
from journeyman.serving.evaluated import check_engine
from journeyman.serving.origin import Door
from journeyman.serving.server import BoundedServer

_LEAST_KEY = 16


def serve_bundle(
    folder: Path,
    port: int | None,
    allow_hosts: Sequence[str] = (),
    key_env: str | None = None,
    *,
    allow_other_engine: bool = False,
) -> None:
    """Serves until a signal arrives, and then ends within SHUTDOWN_S.

    Args:
        port, key_env: override those of the config file.
        allow_hosts: in addition to those of the config file.
        allow_other_engine: serve even if the engine is not the one that was evaluated.

    Raises:
        EngineError: the engine ended, and restarting it did not help.
        InputError: there is no bundle, or one of its files has changed.
        StaleArtifact: the engine is not the one that was evaluated.
        UsageError: the host is not a loopback address, the port is taken, or the key is missing or too short.
    """
    bundle = typed_result(folder, "export", BundleManifest)
    place = folder / place_of("export").folder
    read = [bundle.base_file, *bundle.adapter_files.values(), "prompts.json"]
    check_files(place, read_result(folder, "export")[0], read)
    config = load_config(folder / CONFIG_NAME).serve if (folder / CONFIG_NAME).is_file() else ServeConfig()
    key = key_of(config.key_env if key_env is None else key_env)
    settings = EngineSettings(
        base=place / bundle.base_file,
        adapters={name: place / file for name, file in bundle.adapter_files.items()},
        context=bundle.settings["context"],
        threads=bundle.settings["threads"],
        temperature=bundle.settings["temperature"],
        parallel=bundle.settings["parallel"],
    )
    here = engine_identity(settings.context, settings.parallel, settings.threads)
    for line in check_engine(bundle.engine, here, folder, allow_other=allow_other_engine):
        say(line, err=True)
    listener = _listen(config.host, config.port if port is None else port)
    conversation_of(bundle).text("warm up")  # loads the redaction rules before the first request
    with running_engine(settings) as engine:
        address = address_of(config.host, listener.getsockname()[1])
        listener.listen()  # before the address is printed, which means that it accepts connections
        say(f"serving {', '.join(map(named, bundle.roles))} on {address} (Ctrl-C stops)", err=True)
        hosts = [config.host, *config.allow_hosts, *allow_hosts]
        _run(bundle, engine, listener, lambda text: say(text, err=True), hosts, key)


def _run(
    bundle: BundleManifest,
    engine: ServedEngine,
    listener: socket.socket,
    report: Callable[[str], None],
    hosts: Sequence[str] = (),
    key: str | None = None,
) -> None:
    """Serves until a signal arrives, or until the engine has failed too often."""
    failed = []

    def give_up() -> None:
        failed.append(True)
        server.should_exit = True

    def last_call() -> None:
        if hasattr(app.state, "kept"):
            app.state.kept.last_call()

    app = make_app(bundle, engine, say=report, given_up=give_up)
    server = BoundedServer(Door(app, hosts, key), last_call)
    server.run(sockets=[listener])
    if failed:
        raise EngineError("the engine ended repeatedly and is not restarted again", "Run: journeyman doctor")


def key_of(name: str) -> str | None:
    """The key in the environment variable of this name; None if no name is given. Neither is ever printed.

    Raises:
        UsageError: there is no such variable, or its value is too short or not printable ASCII.
    """
    if not name:
        return None
    key = os.environ.get(name, "")
    if len(key) < _LEAST_KEY or not key.isascii() or not key.isprintable() or key != key.strip():
        raise UsageError(
            f"serve.key_env (--key-env) names no environment variable with {_LEAST_KEY} or more printable characters",
            "Set one: export JOURNEYMAN_KEY=$(openssl rand -hex 32), then: journeyman serve --key-env JOURNEYMAN_KEY",
        )
    return key


def address_of(host: str, port: int) -> str:
    """The base URL of the API; an IPv6 address is in brackets (RFC 3986, section 3.2.2)."""
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def _listen(host: str, port: int) -> socket.socket:
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise UsageError(
            f"serve.host = {host!r} is not a loopback address", 'Set it to "127.0.0.1"; for other hosts, use a proxy'
        )
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UsageError(
            f"port {port} on {host}: {error.strerror}", "Use another one: journeyman serve --port 0"
        ) from error
    return listener
