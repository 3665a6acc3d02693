"""Stale results: refused, naming what differs, or moved to superseded/ so that the stage can be rerun."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from journeyman.errors import InputChanged, StaleArtifact

SUPERSEDED = "superseded"
"""The subfolder of the run with earlier results: NAME-TIME for a stage's folder NAME."""


def changed_keys(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """The names of the inputs that differ, sorted; one that only one side has differs."""
    return sorted(key for key in {*old, *new} if old.get(key) != new.get(key))


def refuse_changed(before: Mapping[str, str], after: Mapping[str, str], stage: str) -> None:
    """Raises InputChanged if a stage's inputs changed while it ran."""
    changed = changed_keys(before, after)
    if changed:
        raise InputChanged(
            f"changed while {stage} was reading: {', '.join(changed)}",
            "Make sure that nothing writes to it, or use a copy, and run it again",
        )


def set_aside_or_refuse(
    folder: Path, old: Mapping[str, str], new: Mapping[str, str], redo: bool, restoring: Callable[[], str] = lambda: ""
) -> None:
    """Moves a stage's folder to superseded/ if `redo` is set.

    Args:
        restoring: what to do to go on with what is there, if something is known; otherwise "".

    Raises:
        StaleArtifact: `redo` is not set; the message names what differs.
    """
    if not redo:
        changed = changed_keys(old, new)
        shown = "; ".join(f"{key}: {_short(old.get(key))}, now {_short(new.get(key))}" for key in changed[:3])
        keeping = restoring()
        remedy = (
            "To rerun it and the later stages (old results move to superseded/): journeyman run --redo; "
            "or restore the old setting, or use another folder"
        )
        raise StaleArtifact(
            f"{folder}: made from other inputs ({shown})", f"{keeping}. {remedy}" if keeping else remedy
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
