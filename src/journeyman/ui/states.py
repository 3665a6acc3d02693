"""The state of a run's stages, and what works on it: from its files alone.

A comparison with settings, logs and the base opens files that the config names, and may start a program that it names
to learn its version, so it is made on request only; see compared.py.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from journeyman.errors import JourneymanError
from journeyman.locking import LOCK
from journeyman.pipeline import STAGES, Stage
from journeyman.renamed import current_inputs
from journeyman.runs import PLACES
from journeyman.supervision.background import Look, look
from journeyman.supervision.heartbeat import PROGRESS, read_progress
from journeyman.ui.files import state_of
from journeyman.ui.manifests import Made, Manifests


def stages_of(root: Path, manifests: Manifests, seen: Look) -> list[dict[str, Any]]:
    """One entry for each stage, in order.

    `state` is missing; running; stopped, failed or dead: the last run ended in it; unfinished: an earlier one did;
    made: no earlier stage was made again since; stale; or damaged.
    """
    found: dict[str, dict[str, Any]] = {}
    made: dict[str, Made] = {}
    for stage in STAGES:
        entry: dict[str, Any] = {"stage": stage.name, "folder": stage.folder, "changed": [], "made": "", "error": ""}
        try:
            manifest = manifests.of(root, stage.name)
        except JourneymanError as error:
            found[stage.name] = {**entry, "state": "damaged", "error": str(error)}
            continue
        if manifest is None:
            entry["state"] = "unfinished" if (root / stage.folder).is_dir() else "missing"
        else:
            made[stage.name] = manifest
            behind = [PLACES[name].folder for name in stage.needs if found[name]["state"] != "made"]
            entry["changed"] = behind or _changed(stage, manifest, made)
            entry |= {"state": "stale" if entry["changed"] else "made", "made": manifest.stamp.created}
        at = seen.progress is not None and seen.progress.stage == stage.name
        if (
            at
            and seen.state in ("running", "stopped", "failed", "dead")
            and entry["state"] in ("unfinished", "missing")
        ):
            entry["state"] = seen.state
        found[stage.name] = entry
    return list(found.values())


def _changed(stage: Stage, manifest: Made, made: dict[str, Made]) -> list[str]:
    """What the manifest was made from that is different today, as far as manifests tell."""
    recorded = current_inputs(manifest.stamp.inputs)
    changed = [] if recorded.get("stage version") == str(stage.version) else ["stage version"]
    for name in stage.needs:
        folder = PLACES[name].folder
        if recorded.get(folder) not in made[name].hashes:
            changed.append(folder)
    return changed


def seen_in(root: Path) -> Look:
    """What works in the folder, or how the last work there ended.

    The lock is not tried if nobody took it since the last work ended: for an instant, that would keep others out.
    """
    reported, lock = state_of(root / PROGRESS), state_of(root / LOCK)
    if (root / PROGRESS).is_symlink() or (root / LOCK).is_symlink():
        return Look("nothing", None)
    progress = read_progress(root) if reported is not None else None
    if reported is None or progress is None or progress.state == "running":
        return look(root)
    return look(root) if lock is not None and lock[2] > reported[2] else Look(progress.state, progress)


def now_of(seen: Look) -> dict[str, Any]:
    """What works on a run, as JSON."""
    progress = seen.progress
    if progress is None:
        return {"state": seen.state, "at_work": seen.at_work}
    shown = ("pid", "host", "command", "words", "stage", "task", "done", "total", "unit", "note", "moved", "beat")
    return {
        "state": seen.state, "at_work": seen.at_work, **progress.model_dump(include=set(shown)),
        "left_s": progress.left_s if seen.at_work else None,
        "quiet_s": max(0.0, time.time() - progress.moved) if seen.at_work and progress.moved else None,
    }  # fmt: skip
