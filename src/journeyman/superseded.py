"""Results that no longer fit their inputs: refused by name, or moved to superseded/ and made again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from journeyman.errors import InputChanged, StaleArtifact

SUPERSEDED = "superseded"
"""The folder, in the run's, that keeps what was made before: NAME-TIME for each folder NAME of a stage."""


def refuse_changed(before: Mapping[str, str], after: Mapping[str, str], stage: str) -> None:
    """Raises an InputChanged where what a stage was made from is not what it is now."""
    changed = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    if changed:
        raise InputChanged(
            f"changed while {stage} read it: {', '.join(changed)}",
            "Let nothing write to it, or use a copy, and run it again",
        )


def set_aside_or_refuse(folder: Path, old: Mapping[str, str], new: Mapping[str, str], redo: bool) -> None:
    """Moves a stage's folder to superseded/ where `redo` is set.

    Raises:
        StaleArtifact: it is not, naming what differs.
    """
    if not redo:
        changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        shown = "; ".join(f"{key}: {_short(old.get(key))}, now {_short(new.get(key))}" for key in changed[:3])
        raise StaleArtifact(
            f"{folder}: made from other inputs ({shown})",
            "To make it and what follows again (the old is kept in superseded/): journeyman run --redo; "
            "or go back to the old setting, or use another folder",
        )
    set_aside(folder)


def set_aside(folder: Path) -> None:
    """Moves a stage's folder to superseded/."""
    aside = folder.parent / SUPERSEDED
    aside.mkdir(exist_ok=True)
    folder.rename(aside / f"{folder.name}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")


def _short(value: str | None) -> str:
    if value is None:
        return "not set"
    return value[:12] + "…" if len(value) == 64 else value[:60]
