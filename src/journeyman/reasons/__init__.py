"""Reasons, refusals, warnings and advice as codes with typed details; see base.py."""

from journeyman.reasons import curation, deciding, files, notes, planning, scoring, sources
from journeyman.reasons.base import Detail, Reason, ReasonRecord, Text, kinds

__all__ = [
    "Detail",
    "Reason",
    "ReasonRecord",
    "Text",
    "curation",
    "deciding",
    "files",
    "kinds",
    "notes",
    "planning",
    "scoring",
    "sources",
]
