"""Flags that do not fit together are refused: none is ignored in silence."""

from __future__ import annotations

from collections.abc import Mapping

from journeyman.errors import UsageError


def refuse_ignored(given: Mapping[str, object], because: str, remedy: str) -> None:
    """Refuses flags that would have no effect.

    Args:
        given: flag → its value; None and False: it was not given.
        because: what makes them useless, as in "--override has no effect {because}".

    Raises:
        UsageError: at least one was given.
    """
    useless = [flag for flag, value in given.items() if value is not None and value is not False]
    if useless:
        raise UsageError(f"{' and '.join(useless)}: no effect {because}", remedy)


def refuse_empty_reason(override: str | None) -> None:
    """Raises UsageError where --override gives no reason: it is recorded in the bundle for good."""
    if override is not None and not override.strip():
        raise UsageError("--override: the reason is empty", 'Give one: --override "pilot with human review"')
