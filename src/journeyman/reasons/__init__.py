"""Reasons, refusals, warnings and advice: codes with typed details; see base.py."""

from journeyman.reasons import (
    advice,
    bundling,
    checking,
    curation,
    dataset,
    deciding,
    files,
    notes,
    planning,
    scoring,
    sources,
)  # fmt: skip
from journeyman.reasons.base import Detail, Reason, ReasonRecord, Text, kinds

__all__ = [
    "Detail",
    "Reason",
    "ReasonRecord",
    "Text",
    "advice",
    "bundling",
    "checking",
    "curation",
    "dataset",
    "deciding",
    "files",
    "kinds",
    "notes",
    "planning",
    "scoring",
    "sources",
]
