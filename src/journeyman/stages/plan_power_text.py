"""What the held-out rows can show, in words."""

from __future__ import annotations

from collections.abc import Iterator

from journeyman.deciding.power import share_that_differs
from journeyman.foreign import named
from journeyman.manifests import PlanManifest, RulePower
from journeyman.stats.power import POWER


def power_lines(plan: PlanManifest) -> list[str]:
    """One line for each rule and role, and what they stand for."""
    if not plan.rule_power:  # made by an older version
        return [
            f"{named(role)}: if its true success is {plan.power_rate:.1%}, the chance to be deployed is {chance:.0%}"
            for role, chance in plan.power.items()
        ]
    of = {"success": _success, "teacher": _teacher, "regression": _regression}
    return [*(of[one.rule](one, plan) for one in plan.rule_power), *_about(plan)]


def _success(one: RulePower, plan: PlanManifest) -> str:
    least, role = plan.rules.min_success, named(one.of)
    if one.shown is None:
        enough = f"even if all pass, this does not prove the required {least:.1%}"
    else:
        enough = f"a true success of {one.shown:.1%} or more is shown to be enough"
    poor = "none is shown to be too low" if one.refuted is None else f"{one.refuted:.1%} or less to be too low"
    chance = plan.power.get(one.of)
    good = "" if chance is None else f"; a model with {plan.power_rate:.1%} is deployed with a chance of {chance:.0%}"
    return f"success of {role}, {_rows(one.rows)}: {enough}, {poor}{good}"


def _teacher(one: RulePower, plan: PlanManifest) -> str:
    margin, differ = plan.rules.margin or 0.0, share_that_differs(plan.rules)
    shown = "nothing is shown" if one.shown is None else f"it is shown to be at most {one.shown:.1%} worse"
    return (
        f"{named(one.of)} against the teacher, {_rows(one.rows)}, margin {margin:.1%}: {shown}, if both are equally "
        f"good and differ on {differ:.0%} of the rows"
    )


def _regression(one: RulePower, plan: PlanManifest) -> str:
    found = "no loss is found, however large" if one.shown is None else f"a loss of {one.shown:.0%} or more is found"
    return f"regression suite, {one.of}, {one.rows:.0f} questions: {found}"


def _about(plan: PlanManifest) -> Iterator[str]:
    needed = next((one.rows_needed for one in plan.rule_power if one.rule == "success"), None)
    count = "more rows than were tried" if needed is None else f"{needed:,} independent test rows"
    yield f"to show that a true success of {plan.power_rate:.1%} is enough, a role needs {count}"
    yield f"shown and found mean: with a chance of {POWER:.0%}, at the first look at the test set"
    yield "latency and memory are measured, not counted: the report says how well they are known"


def _rows(rows: float) -> str:
    return f"{rows:,.1f} independent rows" if rows != round(rows) else f"{rows:,.0f} rows"
