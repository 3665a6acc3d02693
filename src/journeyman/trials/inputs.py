"""What a trial depends on: by name, to say what differs, and as the key of the folder that it is trained in."""

from __future__ import annotations

from journeyman import stage_settings
from journeyman.artifacts import MANIFEST, hash_of
from journeyman.config import TrainConfig
from journeyman.lineage import manifest_data, result_hash
from journeyman.runs import Run
from journeyman.trials.rows import TrialRows


def inputs_of_trials(run: Run) -> dict[str, str]:
    """Setting or input → its value or hash, for trials of a planned run on its dataset that are scored.

    Raises:
        ChangedArtifact: the dataset's manifest is missing or damaged.
    """
    values = {
        **stage_settings.of_plan(run),
        **stage_settings.of_evaluate(run),
        "02-dataset": result_hash(manifest_data(run.folder("curate") / MANIFEST, "curate")),
    }
    return {key: value if isinstance(value, str) else repr(value) for key, value in values.items()}


def key_of_training(run: Run, config: TrainConfig, rows: TrialRows) -> str:
    """A short hash of everything that a trial's adapters depend on: others have their own folder, so that no trial
    finds the checkpoints of another one.

    Args:
        config: the settings of the trial, in place of the run's.
    """
    return hash_of(
        {
            "config": config.model_dump(mode="json"),
            "training": {key: repr(value) for key, value in stage_settings.of_train(run).items()},
            "rows": [[row.model_dump(mode="json") for row in of] for of in (rows.train, rows.val)],
        }
    )[:12]
