"""Runs of versions without train.retention: nothing was trained beside their rows, and nothing about it recorded."""

from __future__ import annotations

from collections.abc import Mapping

from journeyman.artifacts import MANIFEST
from journeyman.config import TrainConfig
from journeyman.errors import ChangedArtifact
from journeyman.general_rows import asked_for
from journeyman.runs import Run, read_result

SHARE = "train.retention.share"
"""The input of `plan` and `train` that is recorded in any case, also if it is 0."""
NO_SHARE = repr(0.0)
_PROMPTS = "general prompts"
_OF_TRAINING = "train.epochs"
"""An input of the same stages, in every version."""


def with_retention(run: Run, recorded: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """A stage's recorded inputs, with train.retention if the version that recorded them had no such setting.

    That is a share of 0. But a finished training is not made anew, nor its plan, because the default is another one
    today: then the inputs are those of today, unless the user has set a share.

    Args:
        now: the stage's inputs today.
    """
    if SHARE in recorded or _OF_TRAINING not in recorded:
        return dict(recorded)
    if asked_for(run.config.train) or not _trained_before(run):
        return {**recorded, SHARE: NO_SHARE}
    below = SHARE.removesuffix("share")
    return {**recorded, **{key: value for key, value in now.items() if key.startswith(below) or key == _PROMPTS}}


def trained_recipe(run: Run) -> TrainConfig:
    """The settings with which the finished training was made, as far as today's config has them."""
    train = run.config.train
    if not _trained_before(run):
        return train
    return train.model_copy(update={"retention": train.retention.model_copy(update={"share": 0.0})})


def _trained_before(run: Run) -> bool:
    """Whether there is a finished training by a version that had no such setting."""
    if not (run.folder("train") / MANIFEST).is_file():
        return False
    try:
        return SHARE not in read_result(run.root, "train")[0].inputs
    except ChangedArtifact:
        return False  # the stage itself is refused or made anew
