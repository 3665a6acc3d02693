"""`journeyman status` and `journeyman show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from journeyman.artifacts import MANIFEST
from journeyman.cli.background import describe
from journeyman.cli.say import result_console, say, say_json, say_on
from journeyman.cli.tables import print_lint_table, print_log_table, print_plan, print_verdict_table, summary_line
from journeyman.cli.time_history import history_lines
from journeyman.config import CONFIG_NAME, load_config
from journeyman.errors import UsageError
from journeyman.manifests import (
    DatasetManifest,
    DecisionManifest,
    EvaluationManifest,
    IngestManifest,
    PlanManifest,
)
from journeyman.pipeline import STAGES
from journeyman.reasons import ReasonRecord
from journeyman.runs import read_result, typed_result
from journeyman.time_history import comparisons, summary


def print_status(folder: Path) -> None:
    """Prints what is running, and one line per stage."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder", "Name the run folder: journeyman status --dir my-run")
    for line in describe(folder):
        say(line)
    for stage in STAGES:
        place = folder / stage.folder
        if (place / MANIFEST).is_file():
            stamp, result = read_result(folder, stage.name)
            text = f"made {stamp.created}: {summary_line(result)}"
        else:
            text = "unfinished" if place.is_dir() else "not run yet"
        say(f"{stage.folder:<16} {text}")
    if line := summary(comparisons(folder)):
        say(line)


def print_stage(folder: Path, stage: str, as_json: bool) -> None:
    """Prints a stage's result: as a table if there is one for it, otherwise its fields."""
    if stage == "cross-validation":
        from journeyman.cli.cross_validate import print_last

        print_last(folder, as_json=as_json)
        return
    if stage == "iterations":
        from journeyman.cli.iterate import print_iterations

        print_iterations(folder, as_json=as_json)
        return
    stamp, result = read_result(folder, stage)
    if as_json:
        say_json({"stamp": stamp.model_dump(), "result": result.model_dump()})
        return
    console = result_console()
    say_on(console, f"{stage}: {summary_line(result)}")
    if isinstance(result, IngestManifest):
        print_log_table(console, result)
    elif isinstance(result, DatasetManifest):
        print_lint_table(console, result)
    elif isinstance(result, PlanManifest):
        print_plan(console, result, load_config(folder / CONFIG_NAME))
        for line in history_lines(comparisons(folder)):
            say_on(console, line)
    elif isinstance(result, DecisionManifest):
        print_verdict_table(console, typed_result(folder, "evaluate", EvaluationManifest), result)
    else:
        say_json(with_sentences(result))


def with_sentences(value: Any) -> Any:
    """A result's fields, with each reason as a sentence; `--json` gives codes and details instead."""
    match value:
        case ReasonRecord():
            return value.sentence()
        case BaseModel():
            return {name: with_sentences(getattr(value, name)) for name in type(value).model_fields}
        case dict():
            return {key: with_sentences(inner) for key, inner in value.items()}
        case list() | tuple():
            return [with_sentences(inner) for inner in value]
    return value
