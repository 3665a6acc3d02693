"""What a probe advises: each rule on figures made for it, and how often the advice is wrong in simulated probes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy.stats import norm

from journeyman.probing.recommending import COPY, Evidence, Tuned, recommend
from journeyman.probing.record import Recommendation
from journeyman.records import BASE, EVERY_ROLE, FEW_SHOT, TEACHER, Score
from journeyman.scoring.summary import Results
from journeyman.stats.learning_curve import learning_curve

PARTS = ("eighth", "quarter", "half")
FULL = 800


def _evidence(
    outcomes: Mapping[str, Sequence[bool | None]],
    threshold: float = 0.9,
    losses: Sequence[float | None] = (None, None, None),
    groups: int | None = None,
) -> Evidence:
    """Arm → what each row came to, None: unscored; parts are arms under their names."""
    names = {True: "pass", False: "fail", None: "unscored"}
    count = len(next(iter(outcomes.values())))
    scores = [
        Score.model_validate({"id": str(row), "role": "coder", "arm": arm, "outcome": names[one], "check": "x"})
        for arm, of in outcomes.items()
        for row, one in enumerate(of)
    ]
    of_row = {str(row): str(row % (groups or count)) for row in range(count)}
    summary = Results(of_row, list(outcomes), list(outcomes), [], [], scores).summary(EVERY_ROLE, 0.95)
    tuned = [
        Tuned(name, FULL // 2 ** (3 - place), losses[place]) for place, name in enumerate(PARTS) if name in outcomes
    ]
    points = [
        (one.rows, {str(row): bool(passed) for row, passed in enumerate(outcomes[one.arm]) if passed is not None})
        for one in tuned
    ]
    return Evidence(summary, tuned, learning_curve(points, of_row), FULL, threshold, 0.95, 0.3)


def _rows(**passed: int | float) -> dict[str, list[bool | None]]:
    """Arm → its rows: the first ones pass, of 200, so that arms differ on as few rows as they can."""
    names = {"few_shot": FEW_SHOT}
    return {names.get(arm, arm): [row < count for row in range(200)] for arm, count in passed.items()}


def _codes(made: Recommendation) -> list[str]:
    return [one.code.removeprefix("probe_") for one in made.reasons]


def test_copies_that_pass_are_looked_at_before_anything_else() -> None:
    made = recommend(_evidence(_rows(base=200, copy=199, eighth=200, quarter=200)))
    assert made.advice == "check" and _codes(made)[0] == "copies_reach"
    assert made.reasons[0].details["similarity"] == 0.3
    some = recommend(_evidence(_rows(base=10, copy=182, eighth=80, quarter=120, half=150)))
    assert some.advice != "check" and "copies_also" in _codes(some)


@pytest.mark.parametrize("arm", [BASE, FEW_SHOT])
def test_a_prompt_that_reaches_the_rule_needs_no_tuning(arm: str) -> None:
    made = recommend(_evidence(_rows(**{"base": 20, arm.replace("-", "_"): 195, "half": 200, "quarter": 198})))
    assert made.advice == "prompt" and _codes(made) == ["prompt_reaches"]
    assert made.reasons[0].details["arm"] == arm


def test_a_part_that_reaches_the_rule_or_a_prediction_that_does_means_tune() -> None:
    half = recommend(_evidence(_rows(base=0, eighth=60, quarter=150, half=196)))
    assert half.advice == "tune" and _codes(half)[:2] == ["tuned_reaches", "predicted"]
    steep = _rows(base=0, eighth=1, quarter=40, half=150)
    found = _evidence(steep)
    measured, predicted = found.rate("half"), found.predicted
    assert measured is not None and predicted is not None and measured.low < predicted.low
    rising = recommend(_evidence(steep, threshold=(measured.low + predicted.low) / 2))
    assert rising.advice == "tune" and _codes(rising) == ["predicted", "still_rising"]


def test_a_curve_that_rises_too_slowly_means_more_data_and_how_much() -> None:
    made = recommend(_evidence(_rows(base=0, eighth=30, quarter=50, half=75)))
    assert made.advice == "more_data" and _codes(made) == ["predicted", "still_rising", "rows_for_threshold"]
    needed = made.reasons[2].details
    assert isinstance(needed["low"], int) and FULL < needed["low"] <= needed["most"]  # type: ignore[operator]


def test_a_flat_curve_below_the_rule_means_stop() -> None:
    plateau = recommend(_evidence(_rows(base=20, eighth=100, quarter=100, half=100), threshold=0.98))
    assert plateau.advice == "stop" and _codes(plateau)[0] == "flat_below"
    nothing = recommend(_evidence(_rows(base=3, eighth=3, quarter=3, half=3)))
    assert nothing.advice == "stop" and _codes(nothing)[0] == "learns_nothing"


def test_a_loss_that_falls_forbids_to_stop() -> None:
    flat = _rows(base=3, eighth=3, quarter=3, half=3)
    falls = recommend(_evidence(flat, losses=(2.0, 1.6, 1.2)))
    assert (falls.advice, falls.leans) == ("cannot_tell", "tune") and _codes(falls) == ["loss_still_falls"]
    assert _evidence(flat, losses=(2.0, 1.6, 1.2)).predicted is None  # success may appear suddenly
    begun = _evidence(_rows(base=3, eighth=3, quarter=3, half=30), losses=(2.0, 1.6, 1.2))
    assert begun.predicted is not None
    assert recommend(_evidence(flat, losses=(2.0, 1.99, 1.98))).advice == "stop"


def test_examples_that_beat_the_tuned_model_mean_prompt_unless_it_still_rises() -> None:
    flat = _rows(base=20, few_shot=160, eighth=90, quarter=90, half=90)
    made = recommend(_evidence(flat))
    assert made.advice == "prompt" and _codes(made)[0] == "prompt_beats_tuned"
    few = recommend(_evidence(_rows(base=0, few_shot=44, eighth=0)))
    assert few.advice == "cannot_tell"  # one small part says nothing about all rows
    rising = recommend(_evidence(_rows(base=20, few_shot=150, eighth=30, quarter=60, half=90)))
    assert rising.advice != "prompt"


def test_few_rows_cannot_tell_and_it_says_how_many_would() -> None:
    few = {
        arm: [row < count for row in range(12)]
        for arm, count in (("base", 0), ("eighth", 6), ("quarter", 9), ("half", 11))
    }
    made = recommend(_evidence(few))
    assert made.advice == "cannot_tell" and made.leans is not None
    found = next(one for one in made.reasons if one.code == "probe_too_few_rows")
    assert found.details["rows"] == 12 and (found.details["needed"] is None or found.details["needed"] > 12)  # type: ignore[operator]


def test_rows_of_few_sessions_count_as_few() -> None:
    outcomes = _rows(base=195)
    assert recommend(_evidence(outcomes)).advice == "prompt"
    assert recommend(_evidence(outcomes, groups=5)).advice == "cannot_tell"


def test_nothing_tuned_or_nothing_scored_is_said() -> None:
    assert _codes(recommend(_evidence(_rows(base=3))))[:1] == ["not_predicted"]
    none: dict[str, list[bool | None]] = {"base": [None] * 8, TEACHER: [True] * 8}
    made = recommend(_evidence(none))
    assert made.advice == "cannot_tell" and _codes(made) == ["nothing_scored"]


def test_unscored_answers_never_speak_for_tuning_and_are_said() -> None:
    scored = {"base": 0, "eighth": 40, "quarter": 40, "half": 40}
    outcomes: dict[str, list[bool | None]] = {
        arm: [*(row < count for row in range(40)), *[None] * 60] for arm, count in scored.items()
    }
    found = _evidence(outcomes)
    assert found.predicted is not None and found.predicted.low <= 0.4
    made = recommend(found)
    assert made.advice == "cannot_tell" and "some_unscored" in _codes(made)
    note = next(one for one in made.reasons if one.code == "probe_some_unscored")
    assert note.details == {"rows": 100, "unscored": 60}


def test_two_trainings_differ_so_a_small_rise_is_no_proof_that_rows_help() -> None:
    outcomes = _rows(base=10, eighth=110, half=130)
    found = _evidence(outcomes)
    assert found.summary.versus["half"]["eighth"].low is not None and found.summary.versus["half"]["eighth"].low > 0
    assert not found.rises and found.growth is not None and found.growth.low is not None and found.growth.low < 0


def test_unscored_answers_never_speak_for_a_prompt() -> None:
    outcomes = {BASE: [*[True] * 190, *[None] * 100]}
    assert recommend(_evidence(outcomes)).advice == "cannot_tell"


def test_a_teacher_that_fails_is_named_beside_every_advice() -> None:
    assert "teacher_below" in _codes(recommend(_evidence(_rows(teacher=120, base=3, eighth=3, quarter=3, half=3))))


# --- how often it is wrong ---

WORLDS = {
    "prompt is enough": (0.97, (0.96, 0.97, 0.97), 0.97, {"prompt", "tune"}),
    "tuning is enough": (0.05, (0.6, 0.85, 0.95), 0.98, {"tune"}),
    "more data": (0.05, (0.15, 0.25, 0.38), 0.5, {"more_data"}),
    "learns nothing": (0.03, (0.03, 0.03, 0.03), 0.03, {"stop"}),
    "plateau": (0.05, (0.6, 0.6, 0.6), 0.6, {"stop"}),
}
"""Base, parts, all rows, and the advice that is right; the rule is 0.9."""


@pytest.mark.parametrize("rows", [20, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("world", WORLDS)
def test_simulated_probes_rarely_advise_what_is_wrong(world: str, rows: int) -> None:
    base, parts, _, right = WORLDS[world]
    random, wrong, told, runs = np.random.default_rng(3), 0, 0, 60
    for _ in range(runs):
        hard = random.normal(size=rows)
        outcomes: dict[str, list[bool | None]] = {}
        for arm, rate in ((BASE, base), *zip(PARTS, parts, strict=True)):
            odds = math.log(rate / (1 - rate)) + random.normal(0, 0.15)
            skill = math.sqrt(0.6) * hard + math.sqrt(0.4) * random.normal(size=rows)
            outcomes[arm] = [bool(one) for one in skill < norm.ppf(1 / (1 + math.exp(-odds)))]
        made = recommend(_evidence(outcomes))
        told += made.advice != "cannot_tell"
        wrong += made.advice not in right | {"cannot_tell"}
    assert wrong / runs <= 0.1
    assert rows < 100 or told / runs > 0.6  # with many rows it does say something


def test_copy_is_no_arm_that_can_be_deployed() -> None:
    assert recommend(_evidence({COPY: [True] * 8, TEACHER: [True] * 8})).advice == "cannot_tell"
