"""Renamed config keys, values and stage inputs, which are still read under their old names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEYS = {"evaluate.probes": "evaluate.regression_suite", "decide.probe_margin": "decide.regression_margin"}
"""Old config key → new one."""
VALUES = {("train.preset", "seed"): "attention-r8"}
"""(config key, old value) → new value."""


def current_config(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The config with the current names, and a warning for each old one.

    If both the old and the new key are set, the old one stays and is refused as unknown.
    """
    data = {name: dict(section) if isinstance(section, dict) else section for name, section in data.items()}
    warnings = []
    for old, new in KEYS.items():
        (section, old_key), new_key = old.split("."), new.split(".")[1]
        values = data.get(section)
        if isinstance(values, dict) and old_key in values and new_key not in values:
            values[new_key] = values.pop(old_key)
            warnings.append(f"{old} is now called {new}: rename it in the config file")
    for (key, old), new in VALUES.items():
        section, name = key.split(".")
        values = data.get(section)
        if isinstance(values, dict) and values.get(name) == old:
            values[name] = new
            warnings.append(f'{key} = "{old}" is now called "{new}": rename it in the config file')
    return data, warnings


def current_inputs(recorded: Mapping[str, str]) -> dict[str, str]:
    """A stage's inputs as an older version recorded them, under their current names: renaming makes nothing stale."""
    values = {(key, repr(old)): repr(new) for (key, old), new in VALUES.items()}
    values |= {(key, old): new for (key, old), new in VALUES.items()}
    named = {KEYS.get(key, key): value for key, value in recorded.items()}
    return {key: values.get((key, value), value) for key, value in named.items()}
