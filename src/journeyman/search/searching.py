"""Carries a search out: measures the first trials, plans the rungs, trains, answers, and compares with the default.

Every trial is looked up in the ledger before it is made, so a search that was stopped or killed resumes with the same
call, and one with a larger budget goes on from what is known.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import islice

from journeyman.durations import argument, seconds_of, spelled
from journeyman.errors import InputError, Interrupted, UsageError
from journeyman.manifests import PlanManifest
from journeyman.protocols import Reporter
from journeyman.runs import Run
from journeyman.search import choosing, halving
from journeyman.search.budget import Budget
from journeyman.search.choosing import Scored
from journeyman.search.halving import Costs, Rung
from journeyman.search.keys import inputs_of, trial_key
from journeyman.search.ledger import Ledger, Trial
from journeyman.search.rung_rows import rows_at, rung_of, scored_rows
from journeyman.search.space import applied, at_share, candidates, dimensions, not_searched
from journeyman.search.state import FOLDER, SearchState, found_of, planned, read_state
from journeyman.search.timing import Clock
from journeyman.search.trying import Entrant, ScoreRows, TrainTrials, Work, try_rung
from journeyman.trials.answering import score_rows
from journeyman.trials.rows import TrialRows, rows_of
from journeyman.trials.together import train_trials


def search(
    run: Run,
    reporter: Reporter,
    *,
    train: TrainTrials = train_trials,
    score: ScoreRows = score_rows,
    clock: Clock = time.monotonic,
) -> SearchState:
    """Searches within the budget of [search], and returns what it found.

    Args:
        run: curated and planned; its [train] is the default that candidates are compared with.

    Raises:
        Interrupted: asked to stop; the same call resumes.
        UsageError: the budget is too small.
        InputError: there are no validation rows, or no file of the base may ship.
        DiskError: the disk is full.
    """
    return _Search(run, reporter, Work(run, train, score, clock, reporter)).done()


class _Search:
    def __init__(self, run: Run, reporter: Reporter, work: Work) -> None:
        self._run, self._reporter, self._work = run, reporter, work
        self._folder = run.root / FOLDER
        self._rows, self._config = rows_of(run), run.config.search
        self._require_rows()
        self._ledger = Ledger(self._folder, repair=True)
        self._made: set[str] = set()
        default = run.config.train
        found = dimensions(default, self._rows.train, one_adapter=bool(run.config.evaluate.merged))
        self._candidates = list(islice(candidates(default, found, self._config.seed), 1 + self._config.most))
        self._inputs = inputs_of(run, self._config.seed)
        drops = any(one.key == "rows.cut_answers" for one in found)
        shares = [one for one in halving.shares_for(len(self._rows.train)) if self._usable(one, drop_cut=drops)]
        self._rungs = [self._rung(share) for share in shares]
        self._budget = Budget(
            seconds_of(self._config.budget), self._ledger, self._inputs, self._rungs, self._candidates,
            lambda changes: applied(default, changes).epochs,
        )  # fmt: skip
        self._state = SearchState(
            inputs=self._inputs, state="running", budget_s=self._budget.seconds, seed=self._config.seed,
            most=self._config.most, default=default,
            searched=[one.key for one in found], left_out=not_searched(found),
            validation_rows=len(self._rows.val),
        )  # fmt: skip

    def done(self) -> SearchState:
        if self._ledger.damaged:
            self._reporter.say(f"warning: {self._ledger.damaged} recorded trials were changed, and are made again")
        try:
            state = self._planned()
            return self._carried_out(state)
        except Interrupted:
            self._work.spent(self._ledger, self._inputs)
            raise

    def _require_rows(self) -> None:
        if not self._rows.val:
            raise InputError(
                "there are no validation rows, and a search scores its trials on them",
                "Set curate.val_share above 0, such as 0.15, and run: journeyman curate --redo",
            )
        if not self._rows.train:
            raise InputError("there are no training rows", "Look at: journeyman show dataset")

    def _usable(self, share: float, *, drop_cut: bool) -> bool:
        """Whether a share leaves rows to score (not if all rows of each role are one group), and each role its rows.

        Args:
            drop_cut: candidates may drop rows whose answers are cut off.
        """
        rows = rows_at(self._rows, share, self._config.seed)
        left = {row.role for row in rows.train if row.ends or not drop_cut}
        return share == 1 or (bool(rows.val) and left == {row.role for row in self._rows.train})

    def _planned(self) -> SearchState:
        """The state with a schedule: the recorded one if nothing has changed, else one from measured costs."""
        before = read_state(self._run.root)
        if before is not None and before.inputs == self._inputs and before.rungs:
            told, self._budget.seconds = spelled(before.budget_s), max(before.budget_s, self._budget.seconds)
            if before.most == self._config.most and before.budget_s == self._budget.seconds:
                self._reporter.say(f"resuming a search of {told}")
                return before.model_copy(update={"state": "running", "found": None})
            self._reporter.say(f"a search of {told} goes on with {spelled(self._budget.seconds)}, and is planned anew")
            self._state = self._state.model_copy(update={"budget_s": self._budget.seconds})
        self._state.write(self._folder)
        self._measure()
        costs, schedule = self._budget.costs(), self._budget.schedule(self._stands)
        state = planned(self._state, schedule, costs)
        if not schedule.steps:
            least = self._budget.spent_s + schedule.least_s
            state = state.model_copy(update={"state": "out_of_budget", "least_s": least})
            state.write(self._folder)
            raise self._too_small(least)
        state.write(self._folder)
        self._tell_plan(state, costs)
        return state

    def _measure(self) -> None:
        """The default and one candidate on the first rung, of which the second does not pay for what is done once."""
        rung = self._rungs[0]
        if not self._recorded(rung, 0):
            self._refuse_hopeless(rung)
            self._reporter.say(f"measuring: two trials on {rung.rows} of {len(self._rows.train)} training rows")
        self._tried(rung, [0, 1][: len(self._candidates)])
        default = self._recorded(rung, 0)
        if default is None:  # it failed in an earlier call, and the budget does not allow it again
            raise self._too_small(self._budget.least_s([1]))
        if not self._budget.is_measured:
            raise InputError(
                f"the first trials failed, so nothing can be planned: {default.why}",
                "Change [train] so that it can be trained, and search again",
            )

    def _refuse_hopeless(self, rung: Rung) -> None:
        """Refuses a budget in which, by the plan's estimate, not even the first trial can be trained."""
        planned = self._run.result("plan", PlanManifest).train_time
        if planned is None:
            return
        of_rung, whole = rung.tokens / max(1, self._rungs[-1].tokens), 2 * planned.seconds
        if planned.low * of_rung > self._budget.seconds:
            raise self._too_small(whole, "by the plan's estimate, without answers, ")

    def _carried_out(self, state: SearchState) -> SearchState:
        going_on = list(range(1, 1 + (state.rungs[0].planned if state.rungs else 0)))
        trials: Mapping[int, Trial] = {}
        nobody_left = False
        for place, of in enumerate(state.rungs):
            rung, last = self._rung(of.share), place == len(state.rungs) - 1
            later = [self._rung(one.share) for one in state.rungs[place + 1 :]]
            tried = self._tried(rung, [0, *going_on[: of.planned]], later)
            state.rungs[place] = of.model_copy(update={"trials": [one.key for one in tried.values()]})
            state.write(self._folder)
            if len(tried) > 1:
                trials = tried
            if not last:
                scored = [_scored(one) for one in trials.values()]
                going_on = choosing.promoted(scored, state.rungs[place + 1].planned)
                if nobody_left := len(trials) > 1 and not going_on:
                    break
        if nobody_left:
            state = state.model_copy(update={"state": "nobody_left"})
        elif 0 not in trials or len(trials) < 2 or trials[0].share < 1:
            least = self._budget.least_s(going_on[:1])
            state = state.model_copy(update={"state": "out_of_budget", "least_s": least})
        else:
            choice = choosing.chosen(
                [_scored(one) for one in trials.values()], scored_rows(self._rows.val), self._config.confidence
            )
            state = state.model_copy(update={"state": "finished", "found": found_of(choice)})
        state.write(self._folder)
        return state

    def _tried(self, rung: Rung, numbers: Sequence[int], later: Sequence[Rung] = ()) -> dict[int, Trial]:
        """The trials of a rung, from the ledger or made now; those that the budget does not allow are left out.

        Args:
            later: rungs for which time is kept. Then trials are made in waves, and after each the costs are measured
                again: a machine on which other work has begun would else spend the whole budget on the first rung.
        """
        found = {number: trial for number in numbers if (trial := self._recorded(rung, number)) is not None}
        while missing := [number for number in numbers if number not in found]:
            fitting = len(missing)
            if self._budget.is_measured:
                scored = {number: _scored(trial) for number, trial in found.items()}
                fitting = self._budget.fitting(rung, missing, scored, later)
            if not fitting:
                self._reporter.say(f"{len(missing)} trials are left out: the budget does not allow them any more")
                break
            wave = missing[: halving.wave(fitting) if later else fitting]
            found |= self._made_now(rung, wave, (len(found), len(numbers)))
            self._require_default(rung, found.get(0))
        return dict(sorted(found.items()))

    def _made_now(self, rung: Rung, missing: Sequence[int], numbered: tuple[int, int]) -> dict[int, Trial]:
        rows = self._rows_of(rung)
        entrants = []
        for number in missing:
            changes = self._candidates[number]
            config = at_share(applied(self._run.config.train, changes), rung.share)
            entrants.append(Entrant(number, changes, config, trial_key(self._run, config, rows)))
        self._made.update(one.key for one in entrants)
        made = try_rung(self._work, entrants, rung.share, rows, self._inputs, self._ledger, numbered)
        return {trial.number: trial for trial in made}

    def _recorded(self, rung: Rung, number: int) -> Trial | None:
        """The trial of this search, or the same one of another search, in which it may have had another number."""
        changes = self._candidates[number]
        config = at_share(applied(self._run.config.train, changes), rung.share)
        key = trial_key(self._run, config, self._rows_of(rung))
        trial = self._ledger.find(self._inputs, key)
        if trial is None and (other := self._ledger.find_any(key)) is not None and other.stands:
            here = {"search": self._inputs, "number": number, "changes": dict(changes), "share": rung.share}
            self._ledger.add(trial := other.model_copy(update=here))
        return trial if trial is not None and self._stands(trial) else None

    def _stands(self, trial: Trial) -> bool:
        """Whether a trial is not made again: what is short or fails now may be had in the next call, not in this."""
        return trial.stands or trial.key in self._made

    def _require_default(self, rung: Rung, trial: Trial | None) -> None:
        if trial is not None and not trial.stands:
            raise InputError(
                f"your own settings, with which all are compared, could not be tried on {rung.rows} rows: {trial.why}",
                "If that can change, such as the memory that is free, the same command tries them again",
            )

    def _rows_of(self, rung: Rung) -> TrialRows:
        return rows_at(self._rows, rung.share, self._config.seed)

    def _rung(self, share: float) -> Rung:
        return rung_of(rows_at(self._rows, share, self._config.seed), share)

    def _too_small(self, least_s: float, by: str = "") -> UsageError:
        return UsageError(
            f"search.budget = {self._config.budget} is too small: the default and one other recipe on all "
            f"{len(self._rows.train)} training rows take {by}about {spelled(least_s)}",
            f"Give at least: --budget {argument(least_s)}",
        )

    def _tell_plan(self, state: SearchState, costs: Costs) -> None:
        steps = "; then ".join(
            f"{one.planned} candidates and the default on {one.rows} training rows" for one in state.rungs
        )
        self._reporter.say(
            f"plan: {steps}, scored on {', '.join(str(one.answered) for one in state.rungs)} rows: about "
            f"{spelled(state.seconds)} of the {spelled(self._budget.left_s)} that are left"
        )
        self._reporter.say(
            f"measured: {1000 * costs.token_s:.2f} ms of training for a token, {costs.trial_s:.1f} s for each trial "
            f"besides, {costs.answer_s:.2f} s for an answer, {costs.engine_s:.1f} s to load the engine"
        )


def _scored(trial: Trial) -> Scored:
    return Scored(trial.number, trial.outcomes, trial.loss, trial.seconds)
