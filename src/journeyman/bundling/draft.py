"""A target in the making."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from journeyman.bundling.source import Source
from journeyman.manifests import BundleManifest, GoldenAnswers, Trial
from journeyman.reasons.base import Reason


@dataclass
class Draft:
    """What is known of a target while it is made.

    Attributes:
        adapter: the adapter that is merged, 'all' or a role; None: all of them, beside their base.
        quantization: the format that the user chose for merged weights; None: see merged_format.
        out: its folder.
        changes: the fields of the bundle's manifest that are others here.
        merged: the format of merged weights.
        arm: the evaluation's arm of these files, if it is another one than that of the bundle.
        why_not: why the files are not those that were evaluated.
        how: how they are served, for the model card.
    """

    source: Source
    golden: GoldenAnswers | None
    adapter: str | None
    quantization: str | None
    out: Path
    changes: dict[str, Any]
    trials: list[Trial]
    notes: list[str]
    merged: str | None = None
    arm: str | None = None
    why_not: Reason | None = None
    how: str = ""

    @property
    def bundle(self) -> BundleManifest:
        return self.source.bundle.model_copy(update=self.changes)
