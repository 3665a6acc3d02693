"""Reads one row, as a log of one line."""

from __future__ import annotations

import json
from typing import Any

from journeyman.config import DataConfig
from journeyman.reasons import ReasonRecord
from journeyman.records import Interaction, Rejected
from journeyman.sources.files import parse_line
from journeyman.sources.reader import Reader


def read(row: dict[str, Any], **config: Any) -> list[Interaction | Rejected]:
    return Reader(DataConfig(**config)).records(parse_line(json.dumps(row).encode(), 1), "log.jsonl")


def one(row: dict[str, Any], **config: Any) -> Interaction:
    (found,) = read(row, **config)
    assert isinstance(found, Interaction), found
    return found


def reason(row: dict[str, Any]) -> str:
    """The sentence of the row's rejection."""
    return rejected(row).sentence()


def code(row: dict[str, Any]) -> str:
    """The code of the row's rejection."""
    return rejected(row).code


def rejected(row: dict[str, Any]) -> ReasonRecord:
    (found,) = read(row)
    assert isinstance(found, Rejected), found
    return found.reason
