"""`--fit`: makes the plan, and if training or serving does not fit, takes the nearest settings with which it does."""

from __future__ import annotations

from dataclasses import replace

from journeyman.artifacts import MANIFEST
from journeyman.cli.running import Invocation, run_stages
from journeyman.cli.say import say
from journeyman.config import CONFIG_NAME, Config, load_config
from journeyman.errors import ChangedArtifact, NoGo
from journeyman.manifests import FittedSetting, NearestConfiguration, PlanManifest
from journeyman.runs import PLACES, Run, typed_result
from journeyman.stage_calls import no_go
from journeyman.stage_settings import setting_of
from journeyman.stage_states import states_of

_CODES = {
    "training": ("training_does_not_fit", "measured_peak_does_not_fit", "trial_out_of_memory"),
    "serving": ("serving_does_not_fit",),
}
_KINDS = ("training", "training", "serving")
"""Steps that are tried with the first settings may need more than was computed: then there is a second choice."""


def fitted(what: Invocation, *, redo: bool = False) -> Invocation:
    """The invocation without --fit, but with settings with which everything fits into memory, if it does not.

    If the plan was made with --fit and nothing else has changed since, its settings are taken again: what has been
    trained with them is not trained anew because more or less memory is free now.

    Raises:
        NoGo: nothing that is known here fits with this base, or only rows that are curated anew, without `redo`.
        JourneymanError: as run_stages does.
    """
    before = _as_before(what)
    if before is not None:
        say(f"--fit: as before, {', '.join(one.override() for one in before.fitted)}", err=True)
        return before
    given = _config(what)
    fits: set[str] = set()
    for kind in _KINDS:
        if kind in fits:
            continue
        run_stages(replace(what, until="plan"), redo=redo)
        plan = typed_result(what.folder, "plan", PlanManifest)
        first = _first(plan, kind)
        if first is None:
            fits.add(kind)
            continue
        if any(key.startswith("curate.") for key in first.settings) and not redo:
            why = next(one for one in (*plan.errors, *plan.warnings) if one.code in _CODES[kind])
            raise NoGo(why.reason(), f"{first.flags()} fits, which curates the data anew: add --redo")
        chosen = [
            FittedSetting(key=key, value=value, instead_of=setting_of(given, key))
            for key, value in first.settings.items()
        ]
        what = replace(what, settings=[*what.settings, *first.overrides()], fitted=[*what.fitted, *chosen])
        costs = "; ".join(cost.sentence() for cost in first.costs)
        say(f"--fit: for this run, {', '.join(first.overrides())} ({first.memory_gb:.1f} GB; {costs})", err=True)
    return replace(what, fit=False)


def _as_before(what: Invocation) -> Invocation | None:
    """The invocation with what --fit changed for the plan that is there; None: there is none, or it would be stale."""
    if not (what.folder / PLACES["plan"].folder / MANIFEST).is_file():
        return None
    try:
        plan, given = typed_result(what.folder, "plan", PlanManifest), _config(what)
        if not plan.fitted or any(setting_of(given, one.key) != one.instead_of for one in plan.fitted):
            return None
        settings = [*what.settings, *(one.override() for one in plan.fitted)]
        again = replace(what, settings=settings, fitted=plan.fitted, fit=False)
        run = Run(again.folder, _config(again), fitted=plan.fitted)
        return again if states_of(run, until="plan")["plan"].state == "fresh" else None
    except ChangedArtifact:
        return None  # running the stages says so, or makes it anew


def _config(what: Invocation) -> Config:
    return load_config(what.folder / CONFIG_NAME, list(what.settings))


def _first(plan: PlanManifest, kind: str) -> NearestConfiguration | None:
    """The first that needs no other model; None: it fits as it is."""
    there = [one for one in plan.nearest if one.of == kind]
    usable = [one for one in there if not one.needs_other_model]
    if not usable and any(one.code in _CODES[kind] for one in plan.errors):
        raise no_go(plan)
    return next(iter(usable), None)
