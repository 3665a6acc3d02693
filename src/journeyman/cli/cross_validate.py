"""`journeyman cross-validate` and `journeyman show cross-validation`."""

from __future__ import annotations

import shlex
from pathlib import Path

from journeyman.api.cross_validating import NOT_THE_FILE, CrossValidate, changed_since, last_result
from journeyman.cli.grid import Column, print_grid
from journeyman.cli.progress import terminal_reporter
from journeyman.cli.say import result_console, say, say_json, say_on
from journeyman.errors import Interrupted
from journeyman.foreign import named, plain
from journeyman.records import BASE, EVERY_ROLE, TUNED
from journeyman.reporting.html import rate_text
from journeyman.trials.cross_validation import CrossValidation

_MOST_NAMED = 5


def run(folder: Path, folds: int, settings: list[str], *, as_json: bool) -> None:
    """Trains and scores the folds, and prints what they show; raises as CrossValidate does."""
    parts = ["journeyman", "cross-validate", "--dir", str(folder), "--folds", str(folds)]
    line = shlex.join([*parts, *(part for one in settings for part in ("--set", one))])
    with terminal_reporter(folder, line) as reporter:
        try:
            result, path = CrossValidate(folder, folds, settings).run(reporter)
        except Interrupted as stop:
            raise Interrupted(stop.what, f"The same command resumes from here: {line}") from stop
    print_result(result, as_json=as_json)
    if not as_json:
        say(f"result: {path}", err=True)


def print_last(folder: Path, *, as_json: bool) -> None:
    """Prints the newest result of a run's folder, and whether it is of other inputs than the run has now.

    Raises:
        UsageError: there is none.
    """
    result = last_result(folder)
    changed = changed_since(folder, result)
    if changed:
        more = f" and {len(changed) - _MOST_NAMED} more" if len(changed) > _MOST_NAMED else ""
        names = ", ".join(plain(one, 200) for one in changed[:_MOST_NAMED])
        say(f"note: this result was made with other inputs than the run has now: {names}{more}", err=True)
    print_result(result, as_json=as_json)


def print_result(result: CrossValidation, *, as_json: bool) -> None:
    """By role the base and the recipe on the same rows, and each fold."""
    if as_json:
        say_json(result.model_dump(mode="json"))
        return
    console = result_console()
    columns = [Column("role", wraps=True), Column("rows", right=True), Column("base"), Column("recipe")]
    columns += [Column("difference"), Column("wins / losses"), Column("p")]
    rows = []
    for role, one in result.roles.items():
        pair = one.versus[TUNED][BASE]
        apart = "not known"
        if pair.difference is not None and pair.low is not None and pair.high is not None:
            apart = f"{pair.difference:+.1%} ({pair.low:+.1%} to {pair.high:+.1%})"
        chance = "not known" if pair.p_value is None else f"{pair.p_value:.3f}"
        rates = [rate_text(one.arms[arm].success) for arm in (BASE, TUNED)]
        rows.append([named(role), str(one.rows), *rates, apart, f"{pair.wins} / {pair.losses}", chance])
    print_grid(console, f"cross-validation in {len(result.folds)} folds of the training rows", columns, rows)
    for number, fold in enumerate(result.folds, start=1):
        say_on(
            console,
            f"fold {number}: {fold.passed} of {fold.scored} (base {fold.base_passed}), trained on {fold.trained} rows "
            f"in {fold.train_s:.0f} s",
        )
    for role, count in result.left_out.items():
        say_on(console, f"{named(role)}: {count} rows not scored: no other rows of this role were trained on")
    unscored = result.roles[EVERY_ROLE].arms[TUNED].unscored
    if unscored:
        say_on(console, f"{unscored} answers could not be scored, and are in no figure above")
    say_on(console, NOT_THE_FILE)
    say_on(
        console,
        "the intervals are of these rows and treat the folds' adapters as one; how much another training would differ "
        "shows in the folds",
    )
