"""evidence/times.jsonl: what the plan predicted, and how long each stage took.

The file only grows, and outlives stages that are made again. The time of training is that of computing, which its
checkpoints carry over interruptions; that of other stages is the sum over all attempts since the first one. An attempt
that was killed leaves its begin without an end: the stage's time is then not known.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

from journeyman import evidence
from journeyman.artifacts import MANIFEST
from journeyman.checksum_lines import read_lines, sealed
from journeyman.errors import JourneymanError
from journeyman.inference.response_cache import may_spare_answers
from journeyman.manifests import AdapterManifest, PlanManifest
from journeyman.runs import PLACES, typed_result

TIMES = f"{evidence.FOLDER}/times.jsonl"
TIMED = ("train", "evaluate", "export")
"""The stages whose time the plan predicts."""


class Comparison(BaseModel):
    """A prediction and what became of it.

    Attributes:
        predicted_s, low_s, high_s: None: the plan did not know.
        actual_s: None: an attempt was killed, so that it is not known.
        cached: some answers of this evaluation may have been there already.
        stopped_early: training ended before its last step, as its validation loss stopped falling.
        at_once: adapters that were trained at the same time: the seconds of all are added up in actual_s, and the plan
            predicts them one after another.
        predicted_gb, actual_gb: peak memory of training, on a GPU what torch allocates of it; None: not known, or
            another stage.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    when: str
    device: str
    measured: bool
    predicted_s: float | None
    low_s: float | None
    high_s: float | None
    actual_s: float | None
    cached: bool = False
    stopped_early: bool = False
    at_once: int = 1
    predicted_gb: float | None = None
    actual_gb: float | None = None

    @property
    def error(self) -> float | None:
        """How much longer the prediction was, as a share of the actual time; None: they cannot be compared."""
        if self.predicted_s is None or not self.actual_s or self.cached or self.stopped_early or self.at_once > 1:
            return None
        return self.predicted_s / self.actual_s - 1

    @property
    def held(self) -> bool | None:
        """Whether the actual time was inside the interval; None: they cannot be compared."""
        if self.error is None or self.actual_s is None or self.low_s is None or self.high_s is None:
            return None
        return self.low_s <= self.actual_s <= self.high_s


@contextmanager
def timed(root: Path, stage: str, key: str) -> Iterator[None]:
    """Records the time of an attempt at a stage. `key`: the fingerprint, which is that of resumed attempts too."""
    if stage not in TIMED:
        yield
        return
    cached = stage == "evaluate" and may_spare_answers(root)
    _append(root, {"event": "began", "stage": stage, "key": key, "cached": cached})
    start = time.monotonic()
    try:
        yield
    finally:
        _append(root, {"event": "ended", "stage": stage, "key": key, "seconds": time.monotonic() - start})


def compare(root: Path, stage: str, key: str, result: BaseModel) -> None:
    """Records the prediction and the time of a stage that has ended."""
    if stage not in TIMED or not (root / PLACES["plan"].folder / MANIFEST).is_file():
        return
    with suppress(JourneymanError):  # a plan that was changed is refused elsewhere
        made = _compared(root, stage, key, result, typed_result(root, "plan", PlanManifest))
        _append(root, {"event": "compared", "stage": stage, "key": key, "comparison": made.model_dump()})


def _compared(root: Path, stage: str, key: str, result: BaseModel, plan: PlanManifest) -> Comparison:
    when = datetime.now(UTC).isoformat(timespec="seconds")
    if isinstance(result, AdapterManifest):
        train = plan.train_time
        return Comparison(
            stage=stage, when=when, device=plan.device_name or "the processor",
            measured=train is not None and train.source == "measured", predicted_s=plan.estimated_train_s,
            low_s=None if train is None else train.low, high_s=None if train is None else train.high,
            actual_s=result.train_s, stopped_early=any(one.stopped_early for one in result.adapters.values()),
            at_once=result.at_once, predicted_gb=plan.countable_train_memory_gb, actual_gb=result.peak_memory_gb,
        )  # fmt: skip
    planned = plan.evaluate_time if stage == "evaluate" else plan.export_time
    seconds, cached = _attempts(root, stage, key)
    return Comparison(
        stage=stage, when=when, device=plan.serving if stage == "evaluate" else "the disk",
        measured=planned is not None and planned.seconds is not None,
        predicted_s=None if planned is None else planned.seconds, low_s=None if planned is None else planned.low,
        high_s=None if planned is None else planned.high, actual_s=seconds, cached=cached,
    )  # fmt: skip


def _attempts(root: Path, stage: str, key: str) -> tuple[float | None, bool]:
    """The seconds of all attempts since the stage was last made, and whether answers were there before the first."""
    begun, ended, cached = 0, 0, False
    seconds = 0.0
    for one in _lines(root):
        if (one.get("stage"), one.get("key")) != (stage, key):
            continue
        match one.get("event"):
            case "began":
                cached = cached or (begun == 0 and bool(one.get("cached")))
                begun += 1
            case "ended":
                ended, seconds = ended + 1, seconds + float(one["seconds"])
            case "compared":
                begun, ended, cached, seconds = 0, 0, False, 0.0
    return (seconds if begun == ended else None), cached


def damaged_lines(root: Path) -> int:
    """How many lines were changed after they were written, or cut short by a kill at the end of the file."""
    lines, torn = read_lines(root / TIMES)
    return sum(line.content is None or not line.sealed for line in lines) + torn


def comparisons(root: Path) -> list[Comparison]:
    """All that were recorded, oldest first."""
    found = []
    for one in _lines(root):
        if one.get("event") == "compared":
            with suppress(ValidationError):  # of a newer version
                found.append(Comparison.model_validate(one["comparison"]))
    return found


def summary(found: Sequence[Comparison]) -> str:
    """How good the measured predictions were, in one line; "" if none can be compared."""
    found = [one for one in found if one.measured]
    errors = [abs(one.error) for one in found if one.error is not None]
    if not errors:
        return ""
    tenth, fifth = (sum(error <= most for error in errors) for most in (0.1, 0.2))
    held = [one.held for one in found if one.held is not None]
    return (
        f"predicted times: {tenth} of {len(errors)} within 10 % of the actual time, {fifth} within 20 %, "
        f"{sum(held)} of {len(held)} in the interval"
    )


def _lines(root: Path) -> list[dict[str, Any]]:
    """The undamaged lines."""
    return [line.content for line in read_lines(root / TIMES)[0] if line.content is not None and line.sealed]


def _append(root: Path, content: dict[str, Any]) -> None:
    """A full disk is reported by the stage itself. The caller holds the run's lock."""
    place = root / TIMES
    with suppress(OSError):
        place.parent.mkdir(exist_ok=True)
        with place.open("ab+") as file:
            _drop_torn_line(file)
            file.write(sealed(content))


def _drop_torn_line(file: BinaryIO) -> None:
    """A kill may have cut the last line short. Left in place it would count as a changed line."""
    file.seek(0)
    whole = file.read().rpartition(b"\n")
    if whole[2]:
        file.truncate(len(whole[0]) + len(whole[1]))
