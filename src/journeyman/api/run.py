"""One run: its stages are methods, each of which brings everything up to that stage up to date."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from journeyman.api.checks import refuse_while_loading
from journeyman.api.html import escaped
from journeyman.api.result import Action, Result
from journeyman.api.results import Adapter, Bundle, Dataset, Decision, Evaluation, Logs, Plan, result_of
from journeyman.api.session import session
from journeyman.api.settings import RoleChecks, Settings, as_overrides, flattened, with_checks, write_sources
from journeyman.api.status import Status
from journeyman.config import CONFIG_NAME, Config, load_config
from journeyman.errors import Interrupted
from journeyman.events import Events, Listener, Warned
from journeyman.pipeline import run_pipeline, stage_named
from journeyman.reasons.base import ReasonRecord
from journeyman.runs import Run as RunFolder
from journeyman.stage_states import states_of

if TYPE_CHECKING:
    from journeyman.api.searching import SearchResult
    from journeyman.api.serving import Server
    from journeyman.iterating.loop import Ended
    from journeyman.trials.cross_validation import CrossValidation

Stage = Literal["ingest", "curate", "plan", "train", "evaluate", "decide", "export"]


class Run:
    """A run folder. Nothing is kept in memory between two calls: other programs may work on the folder in between.

    Every method that runs stages skips what is fresh and resumes what was interrupted. Ctrl-C (an interrupted cell)
    ends the work at the next point where its state can be saved and raises Interrupted; the same call resumes. A
    second Ctrl-C raises KeyboardInterrupt at once, and the same call resumes from the last checkpoint.

    Attributes:
        folder: the run's.
    """

    def __init__(
        self,
        folder: str | PathLike[str] = ".",
        *,
        settings: Settings | None = None,
        checks: RoleChecks | None = None,
    ) -> None:
        """See journeyman.open."""
        refuse_while_loading()
        self.folder = Path(folder)
        flat, sources = with_checks(flattened(settings or {}), checks, self.folder)
        self._overrides: Sequence[str] = as_overrides(flat)
        self._events: Events | None = None
        _ = self.config
        write_sources(sources)
        self._opened()

    @property
    def config(self) -> Config:
        """The settings in force, read from the config file now."""
        return load_config(self.folder / CONFIG_NAME, self._overrides)

    @property
    def status(self) -> Status:
        """Stage → fresh, stale, unfinished or missing. Hashes the logs and the base, once for each state of a file."""
        return Status(states_of(self._opened()))

    def ingest(self, *, on_event: Listener | None = None, redo: bool = False) -> Logs:
        """Reads the logs. For arguments and errors see `run`."""
        return cast(Logs, self.run("ingest", on_event=on_event, redo=redo))

    def curate(self, *, on_event: Listener | None = None, redo: bool = False) -> Dataset:
        """Filters, renders and splits; runs what comes before if needed."""
        return cast(Dataset, self.run("curate", on_event=on_event, redo=redo))

    def plan(self, *, on_event: Listener | None = None, redo: bool = False) -> Plan:
        """Estimates time and memory, and fixes the rules of the decision; runs what comes before if needed.

        Raises:
            NoGo: it cannot be done on this machine.
        """
        return cast(Plan, self.run("plan", on_event=on_event, redo=redo))

    def train(self, *, on_event: Listener | None = None, redo: bool = False) -> Adapter:
        """Trains the adapter; runs what comes before if needed."""
        return cast(Adapter, self.run("train", on_event=on_event, redo=redo))

    def evaluate(self, *, on_event: Listener | None = None, redo: bool = False) -> Evaluation:
        """Asks every arm the held-out test set and judges the answers; runs what comes before if needed."""
        return cast(Evaluation, self.run("evaluate", on_event=on_event, redo=redo))

    def decide(self, *, on_event: Listener | None = None, redo: bool = False) -> Decision:
        """Applies the plan's rules; runs what comes before if needed. No verdict is an error."""
        return cast(Decision, self.run("decide", on_event=on_event, redo=redo))

    def export(
        self,
        *,
        on_event: Listener | None = None,
        redo: bool = False,
        override: str | None = None,
        allow_other_engine: bool = False,
    ) -> Bundle:
        """Writes the files to deploy; runs what comes before if needed.

        Args:
            override: why it is exported against the verdict; the bundle records it.
            allow_other_engine: export though the engine installed here is not the evaluated one.

        Raises:
            NotDeployable: no role may be deployed, and there is no `override`.
        """
        result = self._run("export", on_event, redo, override, allow_other_engine)
        return cast(Bundle, result)

    def run(self, until: Stage = "export", *, on_event: Listener | None = None, redo: bool = False) -> Result[Any]:
        """Brings every stage up to and including `until` up to date, and returns the result of that one.

        Args:
            on_event: is called with every event (journeyman.events), in the thread that does the work; on_event=print
                shows them. What it raises ends the work.
            redo: makes stale stages again; the old are kept in superseded/.

        Raises:
            Interrupted: stopped on request; the same call resumes.
            StaleArtifact: a stage was made from other inputs or settings, and `redo` is not set.
            UsageError: another process is at work in the folder, or a setting is not valid.
            JourneymanError: a stage failed; see journeyman.errors.
        """
        return self._run(until, on_event, redo, None, False)

    def serve(
        self,
        port: int | None = None,
        *,
        allow_hosts: Sequence[str] = (),
        key_env: str | None = None,
        allow_other_engine: bool = False,
    ) -> Server:
        """Serves the exported bundle on an OpenAI-compatible port, in a thread of this program.

        Args:
            port: 0 takes a free one; None is serve.port of the config file.
            allow_hosts: names in the Host header to answer to, in addition to those of the config file.
            key_env: the environment variable with the key that clients must send; None is serve.key_env.
            allow_other_engine: serve with another engine than the one that was evaluated.

        Raises:
            EngineError: the engine did not start.
            InputError: there is no bundle, or a file of it has changed.
            StaleArtifact: another engine than the evaluated one would serve it.
            UsageError: the port is taken, or the key is missing or too short.
        """
        from journeyman.api.serving import Server

        return Server(
            self.folder, port, allow_hosts=allow_hosts, key_env=key_env, allow_other_engine=allow_other_engine
        )

    def cross_validate(self, folds: int = 5, *, on_event: Listener | None = None) -> CrossValidation:
        """Trains and scores the recipe on folds of the training rows: evidence about the recipe, not about a file.

        Raises:
            UsageError: there are fewer groups of related rows than folds.
            NoGo: the plan has errors, or a fold does not fit in memory.
            Interrupted, JourneymanError: as `run`.
        """
        from journeyman.api.cross_validating import CrossValidate

        command = shlex.join(["journeyman", "cross-validate", "--dir", str(self.folder), "--folds", str(folds)])
        with session(self.folder, command, on_event) as events:
            self._events = events
            try:
                return CrossValidate(self.folder, folds, self._overrides).run(events)[0]
            finally:
                self._events = None

    def iterate(self, budget: str = "2h", looks: int = 2, *, on_event: Listener | None = None) -> Ended:
        """Carries out what an "iterate" verdict advises: on validation rows first, then in the run if it is better.

        The run's folder is then made with `settings` of the result, which the config file does not have: until they
        are in it, other stages raise StaleArtifact.

        Args:
            budget: time, such as "30m" or "1h30m".
            looks: further looks at the held-out rows, at most; each has half the error of the one before.

        Raises:
            UsageError: the budget is no time.
            Interrupted, JourneymanError: as `run`.
        """
        from journeyman.api.iterating import Iterate

        command = ["journeyman", "iterate", "--dir", str(self.folder), "--budget", budget, "--looks", str(looks)]
        with session(self.folder, shlex.join(command), on_event) as events:
            self._events = events
            try:
                return Iterate(self.folder, budget, looks, self._overrides).run(events)
            finally:
                self._events = None

    def search(
        self, budget: str | None = None, *, seed: int | None = None, on_event: Listener | None = None
    ) -> SearchResult:
        """Tries other settings of [train] within a budget and scores them on validation rows, not on the held-out ones.

        Args:
            budget: computing time, such as "30m"; None: search.budget. What was interrupted resumes, and a larger
                budget goes on from what is known.
            seed: of the candidates; None: search.seed.
            on_event: see `run`.

        Raises:
            UsageError: the budget is too small for the default and one other recipe; the error says what would do.
            Interrupted, JourneymanError: as `run`.
        """
        from journeyman.api.searching import run_search

        given = {("search", "budget"): budget, ("search", "seed"): seed}
        more = as_overrides({key: value for key, value in given.items() if value is not None})
        with session(self.folder, shlex.join(["journeyman", "search", "--dir", str(self.folder)]), on_event) as events:
            self._events = events
            try:
                return run_search(self.folder, [*self._overrides, *more], events)
            finally:
                self._events = None

    def stop(self) -> None:
        """Asks the work that another thread does with this object to save its state and end; returns at once."""
        if self._events is not None:
            self._events.stop_requested = True

    @overload
    def result(self, stage: Literal["ingest"]) -> Logs: ...
    @overload
    def result(self, stage: Literal["curate"]) -> Dataset: ...
    @overload
    def result(self, stage: Literal["plan"]) -> Plan: ...
    @overload
    def result(self, stage: Literal["train"]) -> Adapter: ...
    @overload
    def result(self, stage: Literal["evaluate"]) -> Evaluation: ...
    @overload
    def result(self, stage: Literal["decide"]) -> Decision: ...
    @overload
    def result(self, stage: Literal["export"]) -> Bundle: ...
    def result(self, stage: Stage) -> Result[Any]:
        """What a stage made, fresh or not, without running anything.

        Raises:
            InputError: it has not been run.
        """
        return result_of(self.folder, stage)

    def command(self, until: Stage = "export") -> str:
        """The shell command that does the same as `run`."""
        settings = [part for one in self._overrides for part in ("--set", one)]
        return shlex.join(["journeyman", "run", "--until", until, "--dir", str(self.folder), *settings])

    def _run(
        self, until: Stage, listener: Listener | None, redo: bool, override: str | None, allow_other_engine: bool
    ) -> Result[Any]:
        stage_named(until)
        opened = self._opened(override, allow_other_engine)
        with session(self.folder, self.command(until), listener) as events:
            self._events = events
            try:
                return self._brought_up_to_date(opened, until, events, redo)
            except Interrupted as stop:
                raise Interrupted(stop.what, "The same call resumes from here") from stop
            finally:
                self._events = None

    def _brought_up_to_date(self, opened: RunFolder, until: Stage, events: Events, redo: bool) -> Result[Any]:
        for warning in opened.config.warnings:
            events.say(f"warning: {warning}")
        for outcome in run_pipeline(opened, until, events, redo=redo):
            for warning in getattr(outcome.result, "warnings", []):
                events.tell(Warned(ReasonRecord.model_validate(warning).reason()))
            action = cast(Action, outcome.action)
            made = result_of(self.folder, outcome.stage, action, outcome.seconds)
        return made

    def _opened(self, override: str | None = None, allow_other_engine: bool = False) -> RunFolder:
        return RunFolder(self.folder, self.config, override, allow_other_engine)

    def _repr_html_(self) -> str:
        return f"<p>Run {escaped(self.folder)}</p>{self.status._repr_html_()}"

    def __repr__(self) -> str:
        return f"<Run {self.folder}>"
