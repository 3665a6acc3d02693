"""Asking a teacher anew for rows of a run that have no usable answer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from journeyman.artifacts import MANIFEST
from journeyman.asking.choosing import DONE, NOT_AGAIN, Chosen, Wanted, choose
from journeyman.asking.ledger import FOLDER, ROWS, Kept, Ledger
from journeyman.asking.limits import Cost, cost_of, with_limits
from journeyman.asking.rows import COMPLETE, drops_teacher, interaction_of, log_row, outcome_of, provider_of
from journeyman.asking.teacher import Teacher
from journeyman.config import CONFIG_NAME, load_config
from journeyman.durations import spelled
from journeyman.errors import UsageError
from journeyman.inference.dispatch import DispatchProgress, dispatch
from journeyman.locking import locked
from journeyman.models.geometry import Geometry
from journeyman.models.opening import sizes_of
from journeyman.protocols import Question, Reporter
from journeyman.records import Prediction
from journeyman.redaction.redactor import Redactor
from journeyman.runs import Run

OWN_FORMAT = "interactions"
"""The name in data.format of the format in which the rows are written."""
_FIRST = 4
"""Answers after which the time of the others is said."""


@dataclass(frozen=True)
class ToAsk:
    """What would be asked, before anything is.

    Attributes:
        wanted: the rows, with the limits of their answers.
        chosen: what was found, and why rows are left out.
        cost: of all answers, at most.
        damaged: lines of the ledger that were changed after they were written.
    """

    wanted: Sequence[Wanted]
    chosen: Chosen
    cost: Cost
    damaged: int = 0


@dataclass(frozen=True)
class AskedAgain:
    """What came of it.

    Attributes:
        outcomes: COMPLETE, or why the answer cannot be used → answers of this call.
        rows: complete answers in the file of rows, of all calls.
        path: that file.
    """

    outcomes: Counter[str]
    rows: int
    path: Path


class AskAgain:
    """A run folder whose dataset is finished, and a teacher's endpoint.

    Args:
        folder: of the run.
        settings: overrides of config keys, such as "ask_again.model='m'".

    Raises:
        UsageError: there is no dataset, or the config file is not valid.
    """

    def __init__(self, folder: Path, settings: Sequence[str] = ()) -> None:
        self.folder = folder
        self.config = load_config(folder / CONFIG_NAME, list(settings))
        self._run = Run(folder, self.config)
        self._place = folder / FOLDER
        if not (self._run.folder("curate") / MANIFEST).is_file():
            raise UsageError(
                f"{folder}: no dataset, so it is not known which rows have no usable answer",
                f"Run: journeyman curate --dir {folder}",
            )

    def look(self, kinds: Sequence[str], *, retry_failed: bool = False) -> ToAsk:
        """Finds the rows and what asking will cost; asks and writes nothing.

        Args:
            kinds: names in asking.kinds.KINDS.
            retry_failed: also rows that the same model has answered without success; those that it cut get twice the
                limit of last time.

        Raises:
            JourneymanError: an input of the run is missing or has changed, or the base cannot be opened.
        """
        run, config = self._run, self.config
        findings = [run.file("curate", name) for name in ("dropped.jsonl", "noted.jsonl")]
        chosen = choose(
            run.file("ingest", "interactions.jsonl.zst"), findings, kinds, config.curate, run.renderer
        )  # fmt: skip
        ledger = Ledger(self._place, self._model)
        answered = ledger.answered()
        failed = ledger.tried({one.question: one.row.role for one in chosen.wanted})
        left = []
        for one in chosen.wanted:
            why = DONE if one.question in answered else NOT_AGAIN if one.question in failed else None
            if why is None or (why == NOT_AGAIN and retry_failed):
                left.append(one)
            else:
                chosen.left_out[why] += 1
        chosen.wanted = left
        wanted = with_limits(chosen, config.ask_again, self._context(), run.renderer, ledger.cut_at())
        cost = cost_of(wanted, config.ask_again.prices, config.ask_again.parallel)
        return ToAsk(wanted, chosen, cost, ledger.damaged)

    def ask(self, found: ToAsk, reporter: Reporter) -> AskedAgain:
        """Asks for the rows; what was answered before is not asked.

        Raises:
            UsageError: no endpoint is given, its key cannot be sent, curate would drop all of its answers, or another
                journeyman works in the folder.
            EngineError: the endpoint does not answer. Answers so far are kept.
            Interrupted: a stop was requested, likewise.
            DiskError: the folder cannot be written to.
        """
        settings = self.config.ask_again
        self.require_endpoint()
        self.require_wanted_teacher(found)
        with locked(self.folder):
            ledger = Ledger(self._place, self._model, self._keep)
            answered = ledger.answered()
            wanted = [one for one in found.wanted if one.question not in answered]
            ledger.expect({one.row.id: one for one in wanted})
            questions = [
                Question(one.row.id, one.row.role, "teacher", one.row.messages, one.limit, one.row.tools)
                for one in wanted
            ]
            teacher = Teacher(settings, ledger.take)
            try:
                reporter.begin("ask again", len(questions), "answers")
                progress = DispatchProgress(reporter, len(questions))
                start = time.monotonic()
                dispatch(questions[:_FIRST], teacher, ledger, settings.parallel, progress)
                rest = questions[_FIRST:]
                if rest:
                    waves = -(-len(questions[:_FIRST]) // settings.parallel)
                    pace = (time.monotonic() - start) / waves
                    seconds = pace * -(-len(rest) // settings.parallel)
                    reporter.say(f"{len(rest)} more answers: about {spelled(seconds)} at the pace of the first")
                    dispatch(rest, teacher, ledger, settings.parallel, progress)
            finally:
                teacher.close()
                rows = ledger.write_rows()
            return AskedAgain(ledger.new, rows, self._place / ROWS)

    def gather(self) -> tuple[int, Path]:
        """Writes the file of rows anew from the ledger; their number and the file.

        Raises:
            UsageError: there are none, or ingest would not read them.
        """
        self._require_readable()
        with locked(self.folder):
            rows = Ledger(self._place, self._model).write_rows()
        if not rows:
            raise UsageError(
                f"{self._place}: no complete answer yet", "Ask first: journeyman ask-again --endpoint URL --model NAME"
            )
        return rows, self._place / ROWS

    def require_endpoint(self) -> None:
        """Raises UsageError if no endpoint or model is given, or ingest would not read the rows."""
        self._require_readable()
        settings = self.config.ask_again
        for name, value, flag in (("url", settings.url, "--endpoint URL"), ("model", settings.model, "--model NAME")):
            if not value:
                raise UsageError(f"ask_again.{name} is not set, so nobody can be asked", f"Set it, or give {flag}")

    def require_wanted_teacher(self, found: ToAsk) -> None:
        """Raises UsageError if a rule of curate would drop every answer of the teacher, whatever it says."""
        url, curate = self.config.ask_again.url, self.config.curate
        for row in {one.row.role: one.row for one in found.wanted}.values():
            model = self._model(row.role)
            rule = drops_teacher(row, model, url, curate, self._run.renderer)
            if rule is not None:
                raise UsageError(
                    f"curate would drop every answer of {provider_of(url)}/{model} (rule {rule})",
                    "Change curate.teachers, curate.teacher_terms or curate.drop_providers, or ask another teacher",
                )

    def _require_readable(self) -> None:
        data = self.config.data
        if data.format not in ("auto", OWN_FORMAT) or data.columns:
            name = "data.columns is set" if data.columns else f"data.format = {data.format!r}"
            raise UsageError(
                f"{name}: every source is read that way, and new answers are rows of journeyman's own format",
                "Remove it: formats are detected row by row",
            )

    def _model(self, role: str) -> str:
        return self.config.ask_again.model.replace("{role}", role)

    def _context(self) -> int:
        sizes = sizes_of(self._run.base)
        served = self.config.evaluate.context
        return min(served, sizes.context) if isinstance(sizes, Geometry) else served

    def _keep(self, wanted: Wanted, answer: Prediction, model: str) -> Kept:
        config, redact = self.config, self.config.redact
        at = datetime.now(UTC).isoformat(timespec="seconds")
        redactor = Redactor(redact.secrets, redact.personal)
        new = interaction_of(wanted, answer, model, config.ask_again.url, at, redactor)
        outcome = outcome_of(new, config.curate, self._run.renderer)
        row: dict[str, Any] | None = log_row(new, wanted.question, config) if outcome == COMPLETE else None
        return outcome, row
