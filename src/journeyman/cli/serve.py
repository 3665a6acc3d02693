"""`journeyman serve`: checks the bundle's files against their hashes, starts the engine, opens the port."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import uvicorn

from journeyman.artifacts import sha256_of
from journeyman.cli.say import say
from journeyman.config import CONFIG_NAME, ServeConfig, load_config
from journeyman.errors import InputError, UsageError
from journeyman.foreign import named
from journeyman.inference.llama import EngineSettings, running_engine
from journeyman.manifests import BundleManifest
from journeyman.pipeline import stage_named, typed_result
from journeyman.serving.app import conversation_of, make_app


def serve_bundle(folder: Path, port: int | None) -> None:
    """Serves until it is stopped.

    Raises:
        InputError: no bundle, or a file of it has changed.
        UsageError: the host is not a loopback address, or the port is taken.
    """
    bundle = typed_result(folder, "export", BundleManifest)
    place = folder / stage_named("export").folder
    _verify(place / bundle.base_file, bundle.base_sha256)
    for name, file in bundle.adapter_files.items():
        _verify(place / file, bundle.adapter_sha256[name])
    config = load_config(folder / CONFIG_NAME).serve if (folder / CONFIG_NAME).is_file() else ServeConfig()
    listener = _listen(config.host, config.port if port is None else port)
    settings = EngineSettings(
        base=place / bundle.base_file,
        adapters={name: place / file for name, file in bundle.adapter_files.items()},
        context=bundle.settings["context"],
        threads=bundle.settings["threads"],
        temperature=bundle.settings["temperature"],
        parallel=bundle.settings["parallel"],
    )
    conversation_of(bundle).text("warm up")  # the rules load now, not in the first request
    with running_engine(settings) as engine:
        address = address_of(config.host, listener.getsockname()[1])
        say(f"serving {', '.join(map(named, bundle.roles))} on {address} (Ctrl-C stops)", err=True)
        server = uvicorn.Server(
            uvicorn.Config(make_app(bundle, engine), log_config=None, log_level="warning", access_log=False)
        )
        server.run(sockets=[listener])


def address_of(host: str, port: int) -> str:
    """The base URL of the API; an IPv6 address stands in brackets (RFC 3986, section 3.2.2)."""
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def _verify(path: Path, expected: str) -> None:
    if not path.is_file() or sha256_of(path) != expected:
        raise InputError(f"{path}: missing or not the file that was evaluated", "Run: journeyman export --redo")


def _listen(host: str, port: int) -> socket.socket:
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise UsageError(
            f"serve.host = {host!r} is not a loopback address", 'Set it to "127.0.0.1"; others need a proxy'
        )
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UsageError(
            f"port {port} on {host}: {error.strerror}", "Take another: journeyman serve --port 0"
        ) from error
    return listener
