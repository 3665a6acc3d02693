"""What the plan says about a base that our own decoder does not train."""

from __future__ import annotations

from collections.abc import Sequence

from journeyman.models.sizes import ModelSizes, Sizes
from journeyman.models.targets import adapted_names, means_all, missing_targets, short_names
from journeyman.reasons import Reason, planning


def notes_of(sizes: Sizes, targets: Sequence[str]) -> list[Reason]:
    """How it is trained, which layers the adapter changes, and which of `train.lora.targets` it does not have."""
    if not isinstance(sizes, ModelSizes):
        return []
    linear = list(sizes.linear)
    adapted, missing = short_names(adapted_names(linear, targets)), missing_targets(linear, targets)
    notes: list[Reason] = [planning.TrainedByTransformers(sizes.architecture, ", ".join(adapted))]
    if missing and not means_all(targets):
        notes.append(planning.TargetsNotThere(sizes.architecture, ", ".join(missing)))
    return notes
