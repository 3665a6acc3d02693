"""Whole searches on a tiny run, with made training and answers, so that only what the search does is tested."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from conftest import log_row
from journeyman.config import TrainConfig, load_config
from journeyman.errors import EngineError, InputError, Interrupted, JourneymanError, NoGo, TrainingDiverged, UsageError
from journeyman.manifests import AdapterManifest, PlanManifest, TrainedAdapter, ValidationPoint
from journeyman.pipeline import run_pipeline
from journeyman.protocols import Reporter, SilentReporter
from journeyman.reasons import Text
from journeyman.records import Score
from journeyman.runs import SEALED, Run
from journeyman.search import halving, searching
from journeyman.search.ledger import TRIALS, Ledger, Trial
from journeyman.search.searching import search
from journeyman.search.state import FOLDER, SearchState, read_state
from journeyman.search.telling import told_result
from journeyman.trials.answering import Arm
from journeyman.trials.rows import TrialRows, rows_of
from journeyman.trials.together import TrainedTrial


class Lab:
    """Stands in for training and answering: a clock that they move, and outcomes by the settings of a trial.

    Attributes:
        good: which settings pass nearly all rows; others pass half of them.
        fails: settings → the error that training raises.
        trained: (settings, training rows) in order.
        die_at: the number of the training that is killed.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.good: Callable[[TrainConfig], bool] = lambda config: config.learning_rate > 1.5e-2
        self.fails: Callable[[TrainConfig], Exception | None] = lambda config: None
        self.trained: list[tuple[TrainConfig, int]] = []
        self.answered: list[tuple[int, int]] = []
        self.scored_ids: list[set[str]] = []
        self.die_at: int | None = None
        self.engine_fails = False
        self._configs: dict[str, TrainConfig] = {}

    def train(
        self, run: Run, config: TrainConfig, rows: TrialRows, folder: Path, reporter: Reporter
    ) -> tuple[AdapterManifest, dict[str, Path]]:
        if self.die_at == len(self.trained):
            raise KeyboardInterrupt
        self.trained.append((config, len(rows.train)))
        if (error := self.fails(config)) is not None:
            raise error
        assert not {row.group for row in rows.train} & {row.group for row in rows.val}
        tokens = config.epochs * sum(row.prompt_tokens + row.answer_tokens for row in rows.train)
        seconds = 1e-4 * tokens
        self.now += 1.0 + seconds
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter.gguf").write_bytes(config.model_dump_json().encode())
        self._configs[folder.name] = config
        points = [ValidationPoint(step=1, loss=1 / config.learning_rate)]
        made = TrainedAdapter(
            folder="", steps=1, total_steps=1, stopped_early=False, best_step=1, validations=points,
            train_loss=0.5, train_s=seconds, tokens=tokens,
        )  # fmt: skip
        manifest = AdapterManifest(
            base_sha256="", trainable_parameters=1, adapters={"all": made}, precision="float32", peak_memory_gb=None
        )
        return manifest, {"all": folder / "adapter.gguf"}

    def train_all(
        self, run: Run, trials: Sequence[tuple[TrainConfig, Path]], rows: TrialRows, reporter: Reporter
    ) -> list[TrainedTrial | Exception]:
        made: list[TrainedTrial | Exception] = []
        for config, folder in trials:
            reporter.advance(0)
            try:
                made.append(self.train(run, config, rows, folder, reporter))
            except Interrupted:
                raise
            except JourneymanError as error:
                made.append(error)
        return made

    def score(self, run: Run, arms: Sequence[Arm], folder: Path, reporter: Reporter) -> dict[str, list[Score]]:
        if self.engine_fails and len(arms) > 1:
            raise EngineError("it crashed")
        self.now += 2.0
        reporter.begin("answer", 1, "answers")
        self.answered.append((len(arms), len(arms[0].rows)))
        found = {}
        for arm in arms:
            self.scored_ids.append({row.id for row in arm.rows})
            config = self._configs[arm.adapters["all"].parent.name]
            self.now += 0.05 * len(arm.rows)
            outcomes = self.outcomes(self.good(config), len(arm.rows))
            found[arm.name] = [
                Score(id=row.id, role=row.role, arm=arm.name, outcome=outcome, check="x")
                for row, outcome in zip(arm.rows, outcomes, strict=True)
            ]
        return found

    def outcomes(self, good: bool, rows: int) -> list[Literal["pass", "fail"]]:
        return ["pass" if (n > 0 if good else n % 2 == 0) else "fail" for n in range(rows)]

    def outcomes_of(self, trial: Trial, *, good: bool) -> dict[str, Literal["pass", "fail"]]:
        return dict(zip(trial.outcomes, self.outcomes(good, len(trial.outcomes)), strict=True))

    def search(self, run: Run, reporter: Reporter | None = None, **settings: Any) -> SearchState:
        config = run.config.model_copy(update={"search": run.config.search.model_copy(update=settings)})
        return search(
            dataclasses.replace(run, config=config), reporter or SilentReporter(),
            train=self.train_all, score=self.score, clock=lambda: self.now,
        )  # fmt: skip


class Jointly(Lab):
    """Trains the trials of a rung at the same time, so that each loop lasts as long as all.

    Args:
        stop_at: the call that is stopped when most of its training is done; the next one does the rest.
    """

    def __init__(self, stop_at: int = 0) -> None:
        super().__init__()
        self._stop_at, self._calls, self._rest = stop_at, 0, 0.0

    def train_all(
        self, run: Run, trials: Sequence[tuple[TrainConfig, Path]], rows: TrialRows, reporter: Reporter
    ) -> list[TrainedTrial | Exception]:
        self._calls, begun = self._calls + 1, self.now
        made = super().train_all(run, trials, rows, SilentReporter())
        took, self.now = self.now - begun, begun
        if self._calls == self._stop_at:
            self.now, self._rest = begun + 0.7 * took, 0.3 * took
            raise Interrupted("stopped")
        self.now, self._rest = begun + (self._rest or took), 0.0
        results: list[TrainedTrial | Exception] = []
        for one in made:
            assert not isinstance(one, Exception)
            whole = one[0].adapters["all"].model_copy(update={"train_s": took})
            results.append((one[0].model_copy(update={"adapters": {"all": whole}}), one[1]))
        return results


class Hears(SilentReporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Path:
    from conftest import write_run

    folder = write_run(
        tmp_path_factory.mktemp("search") / "run", tiny_gguf,
        [log_row(number) for number in range(260)], "[curate]\nval_share = 0.2\n",
    )  # fmt: skip
    list(run_pipeline(Run(folder, load_config(folder / "journeyman.toml")), "plan", SilentReporter()))
    return folder


@pytest.fixture
def run(curated: Path, tmp_path: Path) -> Run:
    folder = tmp_path / "run"
    shutil.copytree(curated, folder)
    (folder / "02-dataset" / SEALED).unlink()  # whoever opens the held-out rows fails
    return Run(folder, load_config(folder / "journeyman.toml"))


@pytest.fixture
def lab() -> Lab:
    return Lab()


def _trials(run: Run) -> list[Trial]:
    state = read_state(run.root)
    assert state is not None
    return list(Ledger(run.root / FOLDER).of(state.inputs))


def _with_train(run: Run, **changes: Any) -> Run:
    train = run.config.train.model_copy(update=changes)
    return dataclasses.replace(run, config=run.config.model_copy(update={"train": train}))


def test_the_better_recipe_is_found_in_rungs_and_the_default_is_in_each(run: Run, lab: Lab) -> None:
    state = lab.search(run, budget="3m")
    assert state.state == "finished"
    assert state.found is not None
    trials = {(one.number, one.share): one for one in _trials(run)}
    assert lab.good(TrainConfig(learning_rate=trials[state.found.number, 1.0].changes["learning_rate"]))
    assert len(state.rungs) > 1
    assert all((0, one.share) in trials for one in state.rungs)
    assert [one.planned for one in state.rungs] == sorted((one.planned for one in state.rungs), reverse=True)
    assert state.found.versus[state.found.number].low > 0
    assert lab.now <= 180


def test_only_the_last_rung_is_scored_on_validation_rows(run: Run, lab: Lab) -> None:
    lab.search(run, budget="3m")
    val = {row.id for row in rows_of(run).val}
    last = [ids for ids in lab.scored_ids if ids & val]
    assert len(last) == 3
    assert all(ids == val for ids in last)


def test_without_a_better_recipe_the_default_is_kept(run: Run, lab: Lab) -> None:
    lab.good = lambda config: False
    state = lab.search(run, budget="3m")
    assert state.found is not None
    assert state.found.number == 0
    assert state.found.best is not None


def test_a_search_that_was_killed_resumes_and_makes_nothing_twice(run: Run, lab: Lab) -> None:
    whole = Lab().search(run, budget="3m")
    (run.root / FOLDER / TRIALS).unlink()
    (run.root / FOLDER / "search.json").unlink()
    lab.die_at = 5
    with pytest.raises(KeyboardInterrupt):
        lab.search(run, budget="3m")
    lab.die_at = None
    recorded = len(_trials(run))
    assert recorded
    state = lab.search(run, budget="3m")
    assert state.found == whole.found
    assert len(lab.trained) == len(_trials(run)) + 5 - recorded  # those that were trained and not yet answered
    before = len(lab.trained)
    assert lab.search(run, budget="3m") == state  # nothing is left to do
    assert len(lab.trained) == before


def test_a_stop_counts_the_time_so_far(run: Run, lab: Lab) -> None:
    def stops(config: TrainConfig) -> Exception | None:
        lab.now += 7
        return Interrupted("stopped")

    lab.fails = stops
    with pytest.raises(Interrupted):
        lab.search(run, budget="3m")
    state = read_state(run.root)
    assert state is not None
    assert Ledger(run.root / FOLDER).spent_s(state.inputs) == pytest.approx(7)


@pytest.mark.parametrize("stop_at", [1, 2])
def test_trials_that_were_stopped_together_cost_what_they_cost_without_a_stop(run: Run, stop_at: int) -> None:
    whole = Jointly().search(run, budget="3m")
    shutil.rmtree(run.root / FOLDER)
    lab = Jointly(stop_at)
    with pytest.raises(Interrupted):
        lab.search(run, budget="3m")
    state = lab.search(run, budget="3m")
    assert state.costs == pytest.approx(whole.costs)
    assert [one.trials for one in state.rungs] == [one.trials for one in whole.rungs]
    assert state.found == whole.found


def test_a_larger_budget_goes_on_from_what_is_known(run: Run, lab: Lab) -> None:
    lab.search(run, budget="90s")
    small = {(one.number, one.share) for one in _trials(run)}
    before = len(lab.trained)
    lab.search(run, budget="6m")
    trials = [(one.number, one.share) for one in _trials(run)]
    assert len(trials) == len(set(trials)) > len(small)
    assert small <= set(trials)
    assert len(lab.trained) - before == len(trials) - len(small)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TrainingDiverged("the loss is NaN"), "diverged"),
        (NoGo(Text("does not fit")), "does_not_fit"),
        (InputError("something else"), "failed"),
    ],
)
def test_a_trial_that_fails_is_recorded_and_loses(run: Run, lab: Lab, error: Exception, kind: str) -> None:
    lab.fails = lambda config: error if config.learning_rate > 2.5e-2 else None
    state = lab.search(run, budget="3m")
    assert state.state == "finished"
    failed = [one for one in _trials(run) if one.state != "scored"]
    assert failed
    assert {one.state for one in failed} == {kind}
    assert all(one.why and not one.outcomes for one in failed)
    assert state.found is not None
    assert state.found.number not in {one.number for one in failed}


@pytest.mark.parametrize("least_rows", [48, 10_000], ids=["rungs", "one rung"])
def test_after_a_recipe_was_applied_the_next_search_compares_with_it(
    run: Run, lab: Lab, least_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halving, "LEAST_ROWS", least_rows)
    first = run.config.train.learning_rate
    lab.good = lambda config: config.learning_rate > 1.5 * first
    state = lab.search(run, budget="10m", most=2)
    assert state.found is not None
    assert next(one for one in _trials(run) if one.number == state.found.number).changes == {"learning_rate": 2 * first}
    before = len(lab.trained)
    again = lab.search(_with_train(run, learning_rate=2 * first), budget="10m", most=4)
    assert again.found is not None
    assert again.found.number == 0, "its settings are as good as those that pass most"
    of_all = {one.number: one for one in _trials(run) if one.share == 1}
    assert of_all[0].changes == {}
    assert of_all[0].outcomes == lab.outcomes_of(of_all[0], good=True)
    assert all(pair.wins <= 1 for pair in again.found.versus.values())  # the first row, which only the worse pass
    assert len(lab.trained) - before < len(_trials(run)), "what was trained before is taken over"


def test_another_seed_takes_over_only_the_same_trials(run: Run, lab: Lab) -> None:
    first = lab.search(run, budget="10m", most=2)
    again = lab.search(run, budget="10m", most=2, seed=1)
    assert first.inputs != again.inputs
    assert again.found == first.found
    assert {one.search for one in _trials(run)} == {again.inputs}


def test_what_failed_for_once_is_tried_again_in_the_next_call(run: Run, lab: Lab) -> None:
    short = NoGo(Text("needs 12 GB, 9 GB are free"))
    lab.fails = lambda config: short if config.learning_rate > 1.5e-2 else None
    state = lab.search(run, budget="30m", most=4)
    assert state.found is not None
    assert state.found.number == 0
    lab.fails = lambda config: None
    state = lab.search(run, budget="30m", most=4)
    assert state.found is not None
    assert state.found.number != 0
    assert {one.state for one in _trials(run)} == {"scored"}


def test_a_default_that_fails_for_once_ends_the_search_without_a_recommendation(run: Run, lab: Lab) -> None:
    default = run.config.train

    def fails(config: TrainConfig) -> Exception | None:
        of_all = lab.trained[-1][1] == len(rows_of(run).train)
        same = config.model_copy(update={"warmup_steps": default.warmup_steps}) == default
        return NoGo(Text("9 GB are free")) if of_all and same else None

    lab.fails, lab.good = fails, lambda config: False
    with pytest.raises(InputError, match=r"could not be tried on .* rows: 9 GB are free"):
        lab.search(run, budget="10m", most=4)
    state = read_state(run.root)
    assert state is not None
    assert (state.state, state.found) == ("running", None)
    lab.fails = lambda config: None
    state = lab.search(run, budget="10m", most=4)
    assert state.found is not None
    assert state.found.number == 0


@pytest.mark.parametrize("most", [2, 12])
def test_another_number_of_candidates_is_planned_anew(run: Run, lab: Lab, most: int) -> None:
    lab.search(run, budget="10m", most=6)
    state = lab.search(run, budget="10m", most=most)
    assert state.state == "finished"
    assert state.rungs[0].planned == most


def test_where_each_role_is_one_group_there_are_no_early_rungs(
    run: Run, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(run)
    one = dataclasses.replace(rows, train=[row.model_copy(update={"group": "g"}) for row in rows.train])
    monkeypatch.setattr(searching, "rows_of", lambda run: one)
    state = lab.search(run, budget="10m", most=4)
    assert state.state == "finished"
    assert [rung.share for rung in state.rungs] == [1.0]


def test_no_rung_leaves_a_role_without_rows_if_cut_answers_may_be_dropped(
    run: Run, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(run)
    half = {row.id for row in rows.part(0.5).train}
    whole = next(row.id for row in rows.train if row.id not in half)
    cut = dataclasses.replace(rows, train=[row.model_copy(update={"ends": row.id == whole}) for row in rows.train])
    monkeypatch.setattr(searching, "rows_of", lambda run: cut)
    state = lab.search(run, budget="10m", most=4)
    assert "rows.cut_answers" in state.searched
    assert [rung.share for rung in state.rungs] == [1.0]


def test_rows_that_could_not_be_scored_are_told_apart_from_those_that_fail(run: Run, lab: Lab) -> None:
    state = lab.search(run, budget="3m")
    assert state.found is not None
    count, trials = state.validation_rows, _trials(run)
    assert f"passes {count - 1} of {count} validation rows, the default" in told_result(state, trials)[1]
    row = next(iter(next(one for one in trials if one.share == 1).outcomes))
    unscored = [
        one.model_copy(update={"outcomes": {**one.outcomes, row: "unscored"}}) if one.number and one.share == 1 else one
        for one in trials
    ]
    told = told_result(state, unscored)[1]
    assert f"passes {count - 1} of {count - 1} validation rows (without 1 that could not be scored for both)" in told


def test_that_no_candidate_is_left_is_not_told_as_a_lack_of_time(run: Run, lab: Lab) -> None:
    default = run.config.train.learning_rate, run.config.train.epochs, run.config.train.batch_size

    def fails(config: TrainConfig) -> Exception | None:
        mine = config.learning_rate, config.epochs, config.batch_size
        return None if mine == default and config.lora == run.config.train.lora else TrainingDiverged("NaN")

    lab.fails = fails
    state = lab.search(run, budget="10m", most=4)
    assert (state.state, state.found) == ("nobody_left", None)
    assert "no candidate could be trained" in told_result(state, _trials(run))[0]


def test_reading_does_not_write(run: Run, lab: Lab) -> None:
    lab.search(run, budget="10m", most=2)
    path = run.root / FOLDER / TRIALS
    path.write_bytes(cut := path.read_bytes()[:-50])
    Ledger(run.root / FOLDER)
    assert path.read_bytes() == cut
    Ledger(run.root / FOLDER, repair=True)
    assert path.read_bytes() != cut


def test_an_engine_that_fails_with_all_adapters_is_asked_with_each(run: Run, lab: Lab) -> None:
    lab.engine_fails = True
    state = lab.search(run, budget="10m", most=4)
    assert state.found is not None
    assert {arms for arms, _ in lab.answered} == {1}


def test_a_budget_that_ends_before_the_last_rung_recommends_nothing_and_says_how_much_more(run: Run, lab: Lab) -> None:
    real = lab.good

    def slower(config: TrainConfig) -> bool:
        lab.now += 20 if len(lab.trained) > 4 else 0
        return real(config)

    lab.good = slower
    state = lab.search(run, budget="3m")
    assert (state.state, state.found) == ("out_of_budget", None)
    assert state.least_s is not None
    assert state.least_s > 180
    lab.good = real
    assert lab.search(run, budget=f"{state.least_s + 60:.0f}s").found is not None


@pytest.mark.parametrize("factor", [1.5, 2.0])
def test_a_machine_that_becomes_slower_still_ends_with_a_comparison(run: Run, lab: Lab, factor: float) -> None:
    real, before = lab.good, [0.0]

    def slower(config: TrainConfig) -> bool:
        """What was done since the last answers takes longer, after the two trials that are measured."""
        if len(lab.trained) > 2:
            lab.now += (factor - 1) * (lab.now - before[0])
        before[0] = lab.now
        return real(config)

    lab.good = slower
    state = lab.search(run, budget="3m")
    assert state.found is not None
    assert state.rungs[0].planned > len(state.rungs[0].trials) - 1 >= 2
    assert Ledger(run.root / FOLDER).spent_s(state.inputs) < 1.1 * 180


def test_a_default_that_cannot_be_trained_ends_the_search_with_the_reason(run: Run, lab: Lab) -> None:
    lab.fails = lambda config: TrainingDiverged("the loss is NaN")
    with pytest.raises(InputError, match=r"the loss is NaN.*Change \[train\]"):
        lab.search(run, budget="3m")


def test_a_budget_too_small_names_the_least_that_would_do(run: Run, lab: Lab) -> None:
    with pytest.raises(UsageError, match=r"is too small.*--budget [0-9]+[sm]") as raised:
        lab.search(run, budget="9s")
    assert len(lab.trained) == 2
    least = str(raised.value).rpartition("--budget ")[2]
    state = lab.search(run, budget=least)
    assert state.state == "finished"


def test_a_budget_below_the_estimate_of_the_first_trial_is_refused_before_it(
    run: Run, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = run.result("plan", PlanManifest)
    assert plan.train_time is not None
    slow = plan.model_copy(update={"train_time": plan.train_time.model_copy(update={"seconds": 900, "low": 500})})
    monkeypatch.setattr(Run, "result", lambda self, stage, kind: slow)
    with pytest.raises(UsageError, match=r"plan's estimate.*--budget 30m"):
        lab.search(run, budget="60s")
    assert not lab.trained


def test_the_plan_is_said_before_with_figures(run: Run, lab: Lab) -> None:
    heard = Hears()
    lab.search(run, heard, budget="3m")
    plan = next(line for line in heard.lines if line.startswith("plan: "))
    assert "candidates and the default on" in plan
    assert "of the" in plan
    assert heard.lines.index(plan) < next(
        place for place, line in enumerate(heard.lines) if line.startswith("trial 3 of")
    )


def test_adapters_are_deleted_and_hashes_kept(run: Run, lab: Lab) -> None:
    lab.search(run, budget="3m")
    assert not list((run.root / FOLDER / "trials").iterdir())
    assert all(len(one.adapter_sha256["all"]) == 64 for one in _trials(run))


def test_a_damaged_line_is_made_again(run: Run, lab: Lab) -> None:
    lab.search(run, budget="10m", most=3)
    path = run.root / FOLDER / TRIALS
    lines = path.read_text().splitlines()
    place = max(number for number, line in enumerate(lines) if '"outcomes"' in line)
    lines[place] = lines[place].replace('"fail"', '"pass"')
    path.write_text("\n".join(lines) + "\n")
    heard, before = Hears(), len(lab.trained)
    lab.search(run, heard, budget="10m", most=3)
    assert "1 recorded trials were changed" in heard.lines[0]
    assert len(lab.trained) == before + 1


def test_without_validation_rows_it_is_refused(run: Run, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "rows_of", lambda run: TrialRows([], []))
    with pytest.raises(InputError, match=r"no validation rows.*val_share"):
        lab.search(run)
