"""Should you tune at all? A probe of a run, from planning on."""

from __future__ import annotations

from pathlib import Path

from journeyman.artifacts import MANIFEST
from journeyman.lineage import manifest_data, result_hash
from journeyman.locking import locked
from journeyman.manifests import EvaluationManifest
from journeyman.probing.comparing import Compared, differing, predicted_and_found
from journeyman.probing.measuring import is_fresh, probe, recorded
from journeyman.probing.record import ProbeRecord
from journeyman.protocols import Reporter
from journeyman.renamed import current_inputs
from journeyman.runs import Run, place_of, read_result, typed_result
from journeyman.stage_calls import refuse_no_go

BUDGET_S = 600.0
"""For tuning on parts of the rows, unless another time is given."""


def probe_run(run: Run, reporter: Reporter, budget_s: float = BUDGET_S) -> ProbeRecord:
    """Probes a run that is planned; what is fresh is returned as it is.

    Args:
        budget_s: seconds for tuning on parts of the training rows and for their answers.

    Raises:
        NoGo: the plan has errors, or training does not fit in memory.
        UsageError: another journeyman works in the folder.
        Interrupted: asked to stop; the same call resumes.
        JourneymanError: as probing.measuring.probe does.
    """
    with locked(run.root):
        refuse_no_go(run)
        return probe(run, budget_s, reporter)


def last_probe(run: Run) -> tuple[ProbeRecord, bool] | None:
    """The last probe, and whether nothing that it depends on has changed since; None: there is none."""
    record = recorded(run.root)
    return None if record is None else (record, is_fresh(record, run))


def compared_with_evaluation(root: Path, record: ProbeRecord) -> dict[str, Compared]:
    """'all' or role → what was predicted and what the evaluation found; empty before it, and if it is of other
    settings or rows: see differs_from_evaluation."""
    if not _is_evaluated(root) or differs_from_evaluation(root, record):
        return {}
    return dict(predicted_and_found(record, typed_result(root, "evaluate", EvaluationManifest)))


def differs_from_evaluation(root: Path, record: ProbeRecord) -> list[str]:
    """The names of what the run's evaluation was made from, and this probe was not; none if there is no evaluation.

    Raises:
        ChangedArtifact: a manifest is damaged.
    """
    if not _is_evaluated(root):
        return []
    folders = {stage: root / place_of(stage).folder for stage in ("plan", "train")}
    evaluated = read_result(root, "evaluate")[0].inputs
    replaced = [
        folder.name
        for stage, folder in folders.items()
        if not (folder / MANIFEST).is_file()
        or evaluated.get(folder.name) != result_hash(manifest_data(folder / MANIFEST, stage))
    ]
    if replaced:
        return replaced
    made: dict[str, str] = {}
    for stage in (*folders, "evaluate"):
        made |= current_inputs(read_result(root, stage)[0].inputs)
    return differing(record, made)


def _is_evaluated(root: Path) -> bool:
    return (root / place_of("evaluate").folder / MANIFEST).is_file()


__all__ = ["BUDGET_S", "compared_with_evaluation", "differs_from_evaluation", "last_probe", "probe_run"]
