"""Who may ask a port: the settings and keys that apply to what is served from a folder."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from pathlib import Path

from journeyman.config import CONFIG_NAME, ServeConfig, load_config
from journeyman.errors import UsageError
from journeyman.runs import folder_with_config
from journeyman.serving.keyring import FILE, KeyFile, Keys

_LEAST_KEY = 16
FIRST_KEY = "first"
"""The name of the key that is made if a port can be reached by others and has none."""


def config_of(folder: Path, releases: Path | None, told: Callable[[str], None]) -> ServeConfig:
    """The settings of the port. A folder that is only a bundle has none, so it gets the defaults, which is told.

    Releases may come from several runs, so the user says whose settings and keys apply.

    Raises:
        UsageError: there is no config file, and the folder is not what is served; or the file is not valid.
    """
    place = folder_with_config(folder)
    if place is not None:
        return load_config(place / CONFIG_NAME).serve
    if releases is not None:
        raise UsageError(
            f"--releases {releases}: whose [serve] settings and keys apply? {folder.resolve()} has no {CONFIG_NAME}",
            f"Name the folder that has them, such as a run's: journeyman serve --dir RUN --releases {releases}; "
            f"an empty {CONFIG_NAME} gives the defaults",
        )
    told(f"{folder.resolve()} has no {CONFIG_NAME}: the [serve] settings are the defaults")
    return ServeConfig()


def key_of(name: str, setting: str = "serve.key_env (--key-env)") -> str | None:
    """The key in the environment variable of this name; None if no name is given. Neither is ever shown.

    Args:
        setting: that gives the name.

    Raises:
        UsageError: there is no such variable, or its value is short or not plain ASCII.
    """
    if not name:
        return None
    key = os.environ.get(name, "")
    if len(key) < _LEAST_KEY or not key.isascii() or not key.isprintable() or key != key.strip():
        raise UsageError(
            f"{setting} names no environment variable with {_LEAST_KEY} or more plain characters",
            "Set one: export JOURNEYMAN_KEY=$(openssl rand -hex 32), then: journeyman serve --key-env JOURNEYMAN_KEY",
        )
    return key


def keys_of(folder: Path, key: str | None, host: str, told: Callable[[str], None], own: str | None = None) -> Keys:
    """The keys that open the port: that of the environment and those in the run folder.

    Beyond this machine, one is required: if there is none, it is made and told, once.

    Raises:
        InputError: the file with keys is damaged.
        DiskError: the new key cannot be stored.
    """
    file = KeyFile(folder / FILE)
    file.listed()
    beyond = not is_loopback(host)
    if beyond and key is None and not file.exists:
        told(f"{host} can be reached by others, so clients must send this key, which is not shown again:")
        told(file.add(FIRST_KEY))
    if beyond:
        told("warning: requests and keys travel unencrypted; put a proxy with TLS in front of it")
    return Keys(key, file, required=beyond, own=own)


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
