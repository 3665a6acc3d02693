"""The general rows of a training: which prompts the base answers for it, and the file with its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from journeyman.artifacts import write_rows
from journeyman.config import TrainConfig
from journeyman.errors import InputError
from journeyman.protocols import Reporter
from journeyman.records import Example
from journeyman.retention import NO_LOAD, GeneralLoad, GeneralPrompt, general_rows
from journeyman.runs import Run

if TYPE_CHECKING:
    from journeyman.inference.arm_runner import RunningEngine

FILE = "general.jsonl"
"""In the folder of a training."""


def general_prompts(run: Run, train: TrainConfig, rows: Mapping[str, int]) -> list[GeneralPrompt]:
    """The prompts whose answers are trained beside the rows: as many as the largest adapter needs.

    Args:
        rows: role → its training rows.

    Returns:
        None of them if no file of the base may ship, so that no engine can answer, unless the user asks for them.

    Raises:
        InputError: the user asks for general rows and none can be made, or see own_answers.prompts_to_ask.
    """
    from journeyman.inference.own_answers import prompts_to_ask

    largest = max(rows.values(), default=0) if train.adapters == "per-role" else sum(rows.values())
    count = general_rows(largest, train.retention.share)
    if not count or (not run.served and not asked_for(train)):
        return []
    if not run.served:
        raise InputError(
            "train.retention: this machine's engine answers general prompts, and only a server may ship",
            "Set train.retention.share = 0, or name a file in evaluate.quantizations",
        )
    return prompts_to_ask(train.retention, count, train.seed, run.renderer, run.root)


def asked_for(train: TrainConfig) -> bool:
    """Whether the user has set a share, and not the default."""
    return "share" in train.retention.model_fields_set


def general_load(run: Run, train: TrainConfig, rows: Mapping[str, int]) -> GeneralLoad:
    """What they cost at most. Arguments and errors: as of general_prompts."""
    return load_of(expected_rows(run, train, rows))


def expected_rows(run: Run, train: TrainConfig, rows: Mapping[str, int]) -> list[Example]:
    """The general rows with answers as long as they may be. Arguments and errors: as of general_prompts."""
    from journeyman.inference.own_answers import longest_rows

    return longest_rows(general_prompts(run, train, rows), train.retention, run.renderer)


def load_of(rows: Sequence[Example]) -> GeneralLoad:
    """What training these rows costs."""
    tokens = [row.prompt_tokens + row.answer_tokens for row in rows]
    return GeneralLoad(len(tokens), sum(tokens) / len(tokens), max(tokens)) if tokens else NO_LOAD


def general_file(
    run: Run, train: TrainConfig, rows: Mapping[str, int], out: Path, reporter: Reporter,
    running_engine: RunningEngine | None = None,
) -> Path | None:  # fmt: skip
    """The file with the base's answers as rows, made unless an earlier attempt at this training has made it.

    Args:
        out: the folder of the training.
        running_engine: None: on this machine.

    Returns:
        None: no general rows are trained. The file is empty if the base gave no answer that can be, which is said.

    Raises:
        InputError: as general_prompts, or the user asks for general rows and the base gave no such answer.
        Interrupted, EngineError: as own_answers.own_answers.
    """
    from journeyman.inference import engines
    from journeyman.inference.own_answers import own_answers

    path, prompts = out / FILE, general_prompts(run, train, rows)
    if not prompts:
        return None
    if not path.is_file():
        made = own_answers(
            prompts, train.retention, run.config.evaluate, run.served[0], run.renderer, run.root, reporter,
            running_engine or engines.running_engine,
        )  # fmt: skip
        if not made and asked_for(train):
            raise InputError(
                f"the base gave no answer to {len(prompts)} general prompts that could be trained",
                "Set train.retention.share = 0, or a higher train.retention.max_tokens if the base reasons first",
            )
        write_rows(path, made)
    return path
