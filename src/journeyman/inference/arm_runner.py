"""Puts the held-out test set to every file that may ship and every endpoint, and the regression suite to base and
adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from journeyman.config import EvaluateConfig
from journeyman.engine_identity import EngineIdentity
from journeyman.errors import EngineError, InputError, Interrupted
from journeyman.foreign import plain
from journeyman.inference.arms import (
    arm_of_file,
    arms_of_base,
    endpoint_questions,
    few_shot_turns,
    questions,
    teacher_predictions,
    timed_rows,
)
from journeyman.inference.dispatch import Asked, DispatchProgress, dispatch
from journeyman.inference.endpoint import open_endpoint
from journeyman.inference.engines import running_engine
from journeyman.inference.response_cache import ResponseCache
from journeyman.manifests import ServedFile
from journeyman.model_files import hash_of_model, size_of_model
from journeyman.protocols import EngineSettings, Question, Reporter, ServingEngine
from journeyman.reasons import Reason
from journeyman.reasons.deciding import TemplateWithoutTools
from journeyman.records import BASE, TEACHER, TUNED, Example, Prediction
from journeyman.regression_suite import KINDS, MOST_TOKENS, SuiteQuestion, SuiteRun, read_suite
from journeyman.rendering.renderer import Renderer


@dataclass(frozen=True)
class Inputs:
    """The inputs of an evaluation.

    Attributes:
        sealed: file of the held-out test set.
        train_rows: file of the training rows, the source of the few-shot arm's examples.
        adapters: 'all' or role → the adapter's file.
        bases: the base's files that may ship; the first is the one that the adapters were trained on.
        folder: the run's folder, with the response cache and the user's own checks.
    """

    sealed: Path
    train_rows: Path
    adapters: Mapping[str, Path]
    bases: Sequence[Path]
    folder: Path


@dataclass
class Gathered:
    """The results collected so far."""

    predictions: list[Prediction] = field(default_factory=list)
    timed: list[Prediction] = field(default_factory=list)
    files: dict[str, ServedFile] = field(default_factory=dict)
    regressions: dict[str, dict[str, SuiteRun]] = field(default_factory=dict)
    arms: list[str] = field(default_factory=list)
    engine: EngineIdentity | None = None

    def note_engine(self, engine: EngineIdentity) -> None:
        """Records the engine of each file.

        Raises:
            EngineError: the engine differs from the one that answered before.
        """
        if self.engine is not None and (found := self.engine.differences(engine)):
            raise EngineError(
                f"the engine was replaced during the evaluation: {'; '.join(found)}",
                "Run the same command again",
            )
        self.engine = engine


class ArmRunner:
    """Runs the arms of files and endpoints one after the other, so that only one model is in memory at a time."""

    def __init__(
        self,
        inputs: Inputs,
        rows: Sequence[Example],
        config: EvaluateConfig,
        renderer: Renderer,
        reporter: Reporter,
    ) -> None:
        self._inputs, self._rows, self._config, self._renderer = inputs, rows, config, renderer
        self._shown = shown = few_shot_turns(inputs.train_rows, rows, config, renderer) if config.few_shot else {}
        self._refuse_control_tokens()
        self._timed = timed_rows(rows, config.timed_rows)
        self._suite = self._askable_suite() if config.regression_suite else {}
        self._answers = ResponseCache(inputs.folder)
        if self._answers.damaged:
            reporter.say(
                f"{self._answers.damaged} entries of the response cache were damaged or edited: their questions are "
                "asked again"
            )
        self._reporter = reporter
        arms = len(arms_of_base(shown)) + len(inputs.bases) - 1
        elsewhere = sum(len(endpoint_questions(name, rows, config)) for name in config.endpoints)
        suite = sum(len(of_kind) for of_kind, _ in self._suite.values()) * (1 + len(inputs.adapters))
        total = arms * len(rows) + len(inputs.bases) * len(self._timed) + elsewhere + suite
        self._progress = DispatchProgress(reporter, total)

    def _refuse_control_tokens(self) -> None:
        """Refuses rows with control tokens, which the engine would read as its own; `curate` lets none through."""
        shown = [turn.as_chat() for turns in self._shown.values() for turn in turns]
        asked = [(row.id, [turn.as_chat() for turn in row.messages], row.tools) for row in self._rows]
        for name, messages, tools in [*asked, ("of the few-shot examples", shown, [])]:
            if found := self._renderer.control.find(messages, tools):
                raise InputError(f"row {plain(name, 80)}: {found}", "Run: journeyman curate --redo")

    def ask(self) -> Gathered:
        gathered = Gathered()
        teacher = self._config.endpoints.get(TEACHER)
        if teacher is None:
            gathered.predictions += teacher_predictions(self._rows)
            gathered.arms.append(TEACHER)
        else:
            self._ask_endpoint(TEACHER, gathered)
        for base in self._inputs.bases:
            self._ask_file(base, gathered)
        for name in self._config.endpoints:
            if name != TEACHER:
                self._ask_endpoint(name, gathered)
        return gathered

    def _ask_file(self, base: Path, gathered: Gathered) -> None:
        config, trained_on = self._config, self._inputs.bases[0]
        ships = arm_of_file(base, trained_on)
        if ships in gathered.files:
            raise InputError(
                f"{base}: another file in evaluate.quantizations or base.model has the same name", "Rename one of them"
            )
        template = self._renderer.served_template
        settings = EngineSettings(
            base, self._inputs.adapters, config.context, config.threads, config.temperature, config.parallel,
            None if template.own else template.source, template.variables,
        )  # fmt: skip
        self._reporter.begin(f"load {base.name}", 1, "model")
        with running_engine(settings) as engine:
            gathered.note_engine(engine.engine_identity)
            identical = self._prove_prompts(engine)
            arms = arms_of_base(self._shown) if base == trained_on else [ships]
            asked = [question for arm in arms for question in questions(arm, self._rows, settings, config, self._shown)]
            self._reporter.begin("evaluate", self._progress.total, "answers")
            answered = self._put(asked, engine, config.parallel)
            timed = self._put(questions(ships, self._timed, settings, config, self._shown), engine, 1)
            if base == trained_on:
                gathered.regressions = self._ask_suite(engine)
        peak = max((one.peak_memory_bytes or 0 for one in (answered, timed)), default=0)
        gathered.arms += arms
        gathered.predictions += answered.predictions
        gathered.timed += timed.predictions
        gathered.files[ships] = ServedFile(
            path=str(base),
            sha256=hash_of_model(base),
            size_gb=size_of_model(base) / 1e9,
            load_s=engine.load_s,
            warm_up_s=engine.warm_up_s,
            peak_memory_gb=peak / 1e9 if peak else None,
            identical_prompts=identical,
        )

    def _ask_endpoint(self, name: str, gathered: Gathered) -> None:
        self._reporter.begin("evaluate", self._progress.total, "answers")
        with open_endpoint(name, self._config.endpoints[name], self._config.temperature) as endpoint:
            asked = endpoint_questions(name, self._rows, self._config)
            answered = dispatch(asked, endpoint, self._answers, self._config.parallel, self._progress)
        gathered.arms.append(name)
        gathered.predictions += answered.predictions

    def _put(self, asked: Sequence[Question], engine: ServingEngine, load: int) -> Asked:
        return dispatch(asked, engine, self._answers, load, self._progress)

    def _prove_prompts(self, engine: ServingEngine) -> int:
        """Verifies that the engine makes the same token ids from every prompt as training did."""
        for row in self._rows:
            if self._reporter.stop_requested:
                raise Interrupted("stopped before the first answer", "Run the same command again to resume")
            trained = self._renderer.prompt_ids(row.messages, row.tools)
            served = engine.prompt_ids(row.messages, row.tools)
            if trained != served:
                place = next((i for i, (a, b) in enumerate(zip(trained, served, strict=False)) if a != b), -1)
                raise EngineError(
                    f"row {row.id}: training and {engine.settings.base.name} make different prompts, from token "
                    f"{place} on: {self._renderer.decode(trained[place:][:8])!r} in training, "
                    f"{self._renderer.decode(served[place:][:8])!r} in the engine",
                    "Use a file of the same model; if it is, its chat template or tokenizer is not supported",
                )
        return len(self._rows)

    def _askable_suite(self) -> dict[str, tuple[list[SuiteQuestion], Reason | None]]:
        """kind → the questions that the base's chat template supports, and the reason if it supports none."""
        askable: dict[str, tuple[list[SuiteQuestion], Reason | None]] = {}
        for kind in KINDS:
            questions = read_suite(kind)
            try:
                for one in questions:
                    self._renderer.prompt_text(one.messages, one.tools)
                askable[kind] = (questions, None)
            except InputError:
                askable[kind] = ([], TemplateWithoutTools())
        return askable

    def _ask_suite(self, engine: ServingEngine) -> dict[str, dict[str, SuiteRun]]:
        """adapter → kind → the answers. The base's answers are shared by all adapters."""

        def put(kind: str, questions: Sequence[SuiteQuestion], adapter: str | None) -> list[Prediction]:
            arm = BASE if adapter is None else TUNED
            asked = [
                Question(f"{kind}/{one.id}", f"regression {kind}", arm, one.messages, MOST_TOKENS, one.tools, adapter)
                for one in questions
            ]
            return self._put(asked, engine, self._config.parallel).predictions

        base = {kind: put(kind, questions, None) for kind, (questions, _) in self._suite.items()}
        return {
            adapter: {
                kind: SuiteRun(questions, base[kind], put(kind, questions, adapter), note)
                for kind, (questions, note) in self._suite.items()
            }
            for adapter in self._inputs.adapters
            if self._suite
        }
