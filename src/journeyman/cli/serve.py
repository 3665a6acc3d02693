"""`journeyman serve`: checks the bundle's files against their hashes, starts the engine, opens the port."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import uvicorn
from rich.console import Console

from journeyman.config import CONFIG_NAME, ServeConfig, load_config
from journeyman.errors import UsageError
from journeyman.inference.llama import EngineSettings, running_engine
from journeyman.lineage import check_files
from journeyman.manifests import BundleManifest
from journeyman.pipeline import read_result, stage_named, typed_result
from journeyman.serving.app import conversation_of, make_app


def serve_bundle(folder: Path, port: int | None) -> None:
    """Serves until it is stopped.

    Raises:
        InputError: no bundle, or a file of it has changed.
        UsageError: the host is not a loopback address, or the port is taken.
    """
    bundle = typed_result(folder, "export", BundleManifest)
    place = folder / stage_named("export").folder
    read = [bundle.base_file, *bundle.adapter_files.values(), "prompts.json"]
    check_files(place, read_result(folder, "export")[0], read)
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
    console = Console(stderr=True, highlight=False)
    conversation_of(bundle).text("warm up")  # the rules load now, not in the first request
    with running_engine(settings) as engine:
        address = f"http://{config.host}:{listener.getsockname()[1]}/v1"
        console.print(f"serving {', '.join(bundle.roles)} on {address} (Ctrl-C stops)", soft_wrap=True)
        server = uvicorn.Server(uvicorn.Config(make_app(bundle, engine), log_level="warning", access_log=False))
        server.run(sockets=[listener])


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
