"""The history of the plan's predictions, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from journeyman.durations import spelled
from journeyman.time_history import Comparison, summary


def history_lines(found: Sequence[Comparison]) -> Iterator[str]:
    """A line for each stage that has ended, and a summary."""
    if not found:
        return
    yield ""
    yield "PREDICTED AND ACTUAL"
    for one in found:
        yield f"  {one.stage}, {one.when}, {one.device}: {_time(one)}{_memory(one)}"
    if line := summary(found):
        yield f"  {line}"


def _time(one: Comparison) -> str:
    predicted = "not known" if one.predicted_s is None else spelled(one.predicted_s)
    if one.predicted_s is not None and one.low_s is not None and one.high_s is not None:
        predicted += f" ({spelled(one.low_s)} to {spelled(one.high_s)})"
    actual = "not known, because an attempt was killed" if one.actual_s is None else spelled(one.actual_s)
    return f"predicted {predicted}{'' if one.measured else ', not measured'}, actual {actual}{_judged(one)}"


def _judged(one: Comparison) -> str:
    if one.cached:
        return " (some answers may have been cached)"
    if one.stopped_early:
        return " (stopped early)"
    if one.at_once > 1:
        return f" in all adapters, {one.at_once} of which were trained at the same time"
    if one.error is None:
        return ""
    inside = "" if one.held is None else ", in the interval" if one.held else ", outside the interval"
    return f": error {one.error:+.0%}{inside}"


def _memory(one: Comparison) -> str:
    if one.actual_gb is None or one.predicted_gb is None:
        return ""
    return f"; peak memory predicted {one.predicted_gb:.2f} GB, actual {one.actual_gb:.2f} GB"
