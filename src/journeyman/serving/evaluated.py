"""Serving runs the engine that was evaluated, or says loudly that it does not."""

from __future__ import annotations

import shlex
from pathlib import Path

from journeyman.engine_identity import EngineIdentity
from journeyman.errors import StaleArtifact

FLAG = "--allow-other-engine"


def check_engine(evaluated: EngineIdentity | None, here: EngineIdentity, run: Path, *, allow_other: bool) -> list[str]:
    """Compares the engine of a bundle with the one that would serve it.

    Args:
        evaluated: as the bundle records it; None or a name alone in bundles of older versions.
        here: the engine on this machine, with the bundle's settings.
        run: the run's folder.
        allow_other: goes on with another engine.

    Returns:
        Warnings to show before serving; none where engine and machine are those of the evaluation.

    Raises:
        StaleArtifact: it is another engine, and `allow_other` is not set.
    """
    if evaluated is None or not evaluated.known:
        return [
            f"warning: the bundle does not record which engine it was evaluated with; this one is {here.line()}. "
            f"To have it on record: {_again(run)}"
        ]
    machine = [
        f"warning: another machine than the evaluation's ({line}): latencies may differ, and answers in rare cases"
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
            f"or serve unevaluated answers: journeyman serve {FLAG}",
        )
    return [f"WARNING: {what}. The verdict says nothing about its answers ({FLAG} is set)", *machine]


def _again(run: Path) -> str:
    return f"journeyman run --redo --dir {shlex.quote(str(run))}"
