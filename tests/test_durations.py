"""Durations as users write and read them."""

from __future__ import annotations

import math
import re

import pytest

from journeyman.durations import PATTERN, argument, seconds_of, spelled
from journeyman.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1.5H", 5400), (" 45 ", 45), ("1h30m", 5400), ("1h0.5m2s", 3632), ("0.5", 0.5)],
)  # fmt: skip
def test_durations_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds
    assert re.match(PATTERN, text.strip().lower())


@pytest.mark.parametrize(
    "text", ["0", "0s", "-1m", "soon", "nan", "inf", "m", "", "1h 30m", "1m30", "1d", "٣s", "9" * 400]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--budget: .*is no duration above 0"):
        seconds_of(text, "--budget")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.034, "0.034 s"), (4.56, "4.6 s"), (59.7, "1 min"), (75, "1 min 15 s"), (3600, "1 h"), (2755, "46 min"),
     (12000, "3 h 20 min"), (200000, "2.3 days")],
)  # fmt: skip
def test_durations_are_short(seconds: float, text: str) -> None:
    assert spelled(seconds) == text


def test_an_argument_is_read_back_as_no_less() -> None:
    for seconds in [0.2, 1, 59.5, 90, 599.01, 600, 601, 3599, 3600, 7261.5, 86400]:
        back = seconds_of(argument(seconds))
        assert seconds <= back <= seconds + (60 if seconds >= 599 else 1)
    assert (argument(5400), argument(120)) == ("1h30m", "120s")
    assert math.isclose(seconds_of(argument(0.0)), 1.0)
