"""Which stages of a run are up to date, without running anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from journeyman.artifacts import MANIFEST
from journeyman.errors import JourneymanError
from journeyman.pipeline import STAGES, Stage, inputs_of, recorded_inputs
from journeyman.runs import Run, read_result
from journeyman.superseded import changed_keys

State = Literal["fresh", "stale", "unfinished", "missing"]


@dataclass(frozen=True)
class StageState:
    """One stage of a run.

    Attributes:
        state: fresh: `run` would skip it; stale: it was made from other inputs or settings; unfinished: it was
            interrupted; missing: it has not been run.
        changed: why it is stale: the settings, files or earlier stages that differ, or what cannot be compared.
        created: when it was made, ISO 8601; "" if it is not finished.
    """

    stage: str
    state: State
    changed: tuple[str, ...] = ()
    created: str = ""


def states_of(run: Run, until: str = "export") -> dict[str, StageState]:
    """Stage → its state, in order, as far as `until`.

    Files are hashed, the base included; files of stages are not: see verify.

    Raises:
        ChangedArtifact: a manifest is damaged.
    """
    found: dict[str, StageState] = {}
    for stage in STAGES:
        found[stage.name] = _state(stage, run, found)
        if stage.name == until:
            break
    return found


def _state(stage: Stage, run: Run, before: Mapping[str, StageState]) -> StageState:
    folder = run.folder(stage.name)
    if not (folder / MANIFEST).is_file():
        return StageState(stage.name, "unfinished" if folder.is_dir() else "missing")
    stamp, made = read_result(run.root, stage.name)
    state = StageState(stage.name, "stale", created=stamp.created)
    behind = tuple(run.folder(name).name for name in stage.needs if before[name].state != "fresh")
    if behind:
        return replace(state, changed=behind)
    if stage.discards(run, made):
        return replace(state, changed=("its lints",))
    override = stamp.inputs.get("override")  # no setting of the config: what was overridden stays so
    try:
        now = inputs_of(stage, replace(run, override=None if override == repr(None) else override))
    except JourneymanError as error:
        return replace(state, changed=(error.what,))
    changed = tuple(changed_keys(recorded_inputs(stage, run, stamp.inputs, now), now))
    return replace(state, changed=changed) if changed else replace(state, state="fresh")
