"""A candidate's settings as TOML, and written into journeyman.toml, whose comments and order stay."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from journeyman.artifacts import write_atomic
from journeyman.config import TrainConfig, parse_config
from journeyman.errors import InputError, UsageError
from journeyman.locking import waiting_lock

Settings = Mapping[str, Any]
"""Dotted key of the config → value."""


def settings_of(default: TrainConfig, config: TrainConfig) -> dict[str, Any]:
    """What distinguishes a candidate from the default, as keys of the config file."""
    return {key: value for key, value in _flat(config).items() if _flat(default)[key] != value}


def as_toml(settings: Settings) -> str:
    """The settings as a part of a config file."""
    return _with_settings("", settings)


def apply(path: Path, settings: Settings) -> dict[str, tuple[Any, Any]]:
    """Writes settings into a config file; key → old value (None: it was not set) and new one.

    Raises:
        UsageError: the file is missing or not TOML, or would not be valid.
        InputError: it cannot be read.
        DiskError: it cannot be written.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    with waiting_lock(path):
        try:
            text = path.read_bytes().decode("utf-8")
        except FileNotFoundError as error:
            raise UsageError(f"{path}: no such file", "Create one: journeyman init") from error
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read: {error}", "Repair the file") from error
        try:
            before = tomlkit.parse(text).unwrap()
            made = _with_settings(text, settings)
            parse_config(tomlkit.parse(made).unwrap(), str(path))
        except TOMLKitError as error:
            raise UsageError(f"{path}: not valid TOML: {error}", "Fix that line and run the command again") from error
        write_atomic(path, made.encode())
    return {key: (_value(before, key), value) for key, value in settings.items()}


def _with_settings(text: str, settings: Settings) -> str:
    import tomlkit

    document = tomlkit.parse(text)
    for key, value in settings.items():
        *sections, last = key.split(".")
        place: Any = document
        for section in sections:
            if section not in place:
                place[section] = tomlkit.table(is_super_table=False)
            place = place[section]
            if not isinstance(place, Mapping):
                raise UsageError(f"{section} is not a section of the config file", f"Write [{'.'.join(sections)}]")
        place[last] = value
    made = tomlkit.dumps(document)
    if tomllib.loads(made) != _merged(tomllib.loads(text), settings):
        raise UsageError("the settings cannot be written into this config file", "Set them by hand")
    return made


def _merged(data: dict[str, Any], settings: Settings) -> dict[str, Any]:
    for key, value in settings.items():
        *sections, last = key.split(".")
        table = data
        for name in sections:
            table = table.setdefault(name, {})
        table[last] = value
    return data


def _value(data: Mapping[str, Any], key: str) -> Any:
    found: Any = data
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _flat(config: TrainConfig) -> dict[str, Any]:
    """Dotted keys, below train."""

    def below(name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            return {name: value}
        return {full: leaf for key, inner in value.items() for full, leaf in below(f"{name}.{key}", inner).items()}

    return below("train", config.model_dump(mode="json"))
