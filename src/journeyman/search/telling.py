"""What a search found, in sentences, and its trials in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from journeyman.config import TrainConfig
from journeyman.durations import argument, spelled
from journeyman.foreign import named
from journeyman.search.applying import settings_of
from journeyman.search.choosing import Scored, ranked
from journeyman.search.ledger import Trial
from journeyman.search.space import applied
from journeyman.search.state import Found, Pair, SearchState
from journeyman.search.trying import described


def recommended(state: SearchState, trials: Sequence[Trial]) -> dict[str, Any] | None:
    """Dotted keys of the config to change, with their values; empty: keep the default; None: nothing was found out."""
    if state.found is None:
        return None
    trial = _final(state.found.number, trials)
    return {} if trial is None else settings_of(state.default, candidate(state.default, trial))


def candidate(default: TrainConfig, trial: Trial) -> TrainConfig:
    """A trial's settings, for all training rows."""
    return applied(default, trial.changes)


def in_order(trials: Sequence[Trial]) -> list[Trial]:
    """Trials on more rows first, the best of a rung first."""
    shown: list[Trial] = []
    for share in sorted({one.share for one in trials}, reverse=True):
        rung = {one.number: one for one in trials if one.share == share}
        order = ranked([Scored(one.number, one.outcomes, one.loss, one.seconds) for one in rung.values()])
        shown += [rung[one.number] for one in order]
    return shown


def wins_and_losses(trial: Trial, trials: Sequence[Trial]) -> tuple[int, int] | None:
    """Rows that a trial passes and the default of its rung fails, and the reverse; None for the default itself."""
    default = next((one for one in trials if one.share == trial.share and not one.number), None)
    if not trial.number or default is None or not trial.outcomes or not default.outcomes:
        return None
    pairs = [(outcome, default.outcomes.get(row)) for row, outcome in trial.outcomes.items()]
    return pairs.count(("pass", "fail")), pairs.count(("fail", "pass"))


def told_result(state: SearchState, trials: Sequence[Trial]) -> list[str]:
    """What is recommended, on which evidence."""
    found = state.found
    if found is None:
        if state.state == "out_of_budget" and state.least_s is not None:
            return [
                "nothing is recommended: the budget ended before candidates were trained on all rows",
                f"go on with: journeyman search --budget {argument(state.least_s)}",
            ]
        if state.state == "nobody_left":
            return ["no better recipe was found: no candidate could be trained and scored. Keep the default"]
        return ["the search is not finished: the same command goes on with it"]
    if found.best is None:
        return ["no better recipe was found: no candidate could be trained and scored on all rows. Keep the default"]
    return [*_about(found, found.best, state, trials), *_about_roles(found, found.best)]


def _about(found: Found, best: int, state: SearchState, trials: Sequence[Trial]) -> list[str]:
    pair, trial, default = found.versus[best], _final(best, trials), _final(0, trials)
    what = described(trial.changes) if trial is not None else f"candidate {best}"
    both = [row for row in (trial.outcomes if trial else {}) if _scored(row, trial) and _scored(row, default)]
    rows = f"{len(both)} validation rows"
    if left_out := state.validation_rows - len(both):
        rows += f" (without {left_out} that could not be scored for both)"
    figures = f"passes {_passed(trial, both)} of {rows}, the default {_passed(default, both)}; "
    figures += f"difference {_points(pair)}"
    if found.number:
        return [
            f"recommended: {what}",
            f"it {figures}, at {found.confidence:.1%} confidence, corrected for {len(found.versus)} candidates",
            "this is evidence about the recipe; the file that ships is judged on the held-out test rows, as always",
        ]
    if pair.low > 0:
        return [f"no recipe is recommended: {what} {figures}, but it is clearly worse in a role. Keep the default"]
    return [
        f"no better recipe was found. The best other one, {what}, {figures}, at {found.confidence:.1%} confidence: "
        "that is within the noise. Keep the default"
    ]


def _about_roles(found: Found, best: int) -> list[str]:
    lines = []
    for role in found.lost:
        pair = found.by_role[best][role]
        sure = "clearly" if role in found.vetoed else "perhaps by chance"
        lines.append(
            f"warning: {named(role)} loses, {sure}: {pair.losses} rows fail that pass with the default, "
            f"{pair.wins} pass that failed ({pair.rows} rows)"
        )
    return lines


def _points(pair: Pair) -> str:
    return f"{100 * pair.difference:+.0f} points, interval {100 * pair.low:+.0f} to {100 * pair.high:+.0f}"


def _scored(row: str, trial: Trial | None) -> bool:
    """Whether the row counts; a default that diverged has no outcomes, and passes none."""
    return trial is None or not trial.outcomes or trial.outcomes.get(row) in ("pass", "fail")


def _passed(trial: Trial | None, rows: Sequence[str]) -> str:
    if trial is None or not trial.outcomes:
        return "none"
    return str(sum(trial.outcomes[row] == "pass" for row in rows))


def _final(number: int, trials: Sequence[Trial]) -> Trial | None:
    return next((one for one in trials if one.number == number and one.share == 1), None)


def told_space(state: SearchState) -> list[str]:
    """What is searched, and what is not."""
    lines = [f"searched: {', '.join(state.searched)}, within {spelled(state.budget_s)}"]
    return lines + [f"not searched: {one}" for one in state.left_out]
