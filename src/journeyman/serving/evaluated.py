"""Verifies that serving runs the engine that was evaluated."""

from __future__ import annotations

import shlex
from pathlib import Path

from journeyman.config import CONFIG_NAME
from journeyman.engine_identity import EngineIdentity
from journeyman.errors import StaleArtifact

FLAG = "--allow-other-engine"


def check_engine(
    evaluated: EngineIdentity | None, here: EngineIdentity, run: Path | None, *, allow_other: bool
) -> list[str]:
    """Compares the engine of a bundle with the one that would serve it.

    Args:
        evaluated: the engine recorded in the bundle; None or only a name in bundles of older versions.
        here: the engine on this machine, with the bundle's settings.
        run: the folder that is served: of a run, a bundle or a release; None: it is not known.
        allow_other: serve with a different engine, with a warning.

    Returns:
        Warnings to show before serving; empty if engine and machine are those of the evaluation.

    Raises:
        StaleArtifact: the engine is a different one, and `allow_other` is not set.
    """
    if evaluated is None or not evaluated.known:
        return [
            f"warning: the bundle does not record which engine it was evaluated with; this one is {here.line()}. "
            f"To record it: {_again(run)}"
        ]
    machine = [
        f"warning: this machine differs from the evaluation's ({line}): latencies may differ, and rarely also answers"
        for line in evaluated.machine_differences(here)
    ]
    found = evaluated.differences(here)
    if not found:
        return machine
    what = f"the bundle was evaluated with {evaluated.line()}, but {here.line()} would serve it ({'; '.join(found)})"
    if not allow_other:
        raise StaleArtifact(
            what,
            f"Evaluate with this engine: {_again(run)}; or install the evaluated engine; "
            f"or serve without an evaluation: journeyman serve {FLAG}",
        )
    return [f"WARNING: {what}. The verdict does not apply to its answers ({FLAG} is set)", *machine]


def _again(run: Path | None) -> str:
    """The command; a bundle or a release does not know where its run is."""
    known = run is not None and (run / CONFIG_NAME).is_file()
    where = shlex.quote(str(run)) if known else "RUN, the folder from which it was exported"
    return f"journeyman run --redo --dir {where}"
