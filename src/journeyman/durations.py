"""Durations: as the user gives them, as text for people, and as an argument of a command."""

from __future__ import annotations

import re

from journeyman.errors import UsageError
from journeyman.foreign import plain

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
PATTERN = r"^[0-9]+(\.[0-9]+)?$|^([0-9]+(\.[0-9]+)?[smh])+$"
"""What seconds_of reads, for a field of the config."""


def seconds_of(text: str, name: str = "the budget") -> float:
    """The seconds of a duration such as 90s, 30m, 1.5h, 1h30m, or a number, which is in seconds.

    Args:
        name: of the flag or setting, for the error.

    Raises:
        UsageError: it is none, or 0.
    """
    given = text.strip().lower()
    parts = re.findall(r"([0-9.]+)([smh]?)", given) if re.fullmatch(PATTERN, given) else []
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds < float("inf"):
        raise UsageError(f"{name}: {plain(text, 40)} is no duration above 0", "Write it as 90s, 30m or 1h30m")
    return seconds


def spelled(seconds: float) -> str:
    """A duration in the two largest units that matter: "0.3 s", "45 s", "12 min 30 s", "3 h 20 min"."""
    if seconds < 9.95:
        return f"{seconds:.2g} s" if seconds < 0.95 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest and minutes < 30 else f"{round(whole / 60)} min"
    hours, minutes = divmod(round(whole / 60), 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{whole / 86400:.1f} days"


def argument(seconds: float) -> str:
    """As seconds_of reads it, and not shorter: rounded up to the second, or to the minute from ten of them on."""
    if seconds < 600:
        return f"{max(1, int(-(-seconds // 1)))}s"
    hours, minutes = divmod(int(-(-seconds // 60)), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or not hours else "")
