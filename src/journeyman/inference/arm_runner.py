"""Puts the held-out test set to every file that may ship and every endpoint, and the regression suite to base and
adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from journeyman.config import EvaluateConfig
from journeyman.engine_identity import EngineIdentity
from journeyman.errors import EngineError, InputError
from journeyman.foreign import plain
from journeyman.inference.arms import (
    SERVER,
    arm_of_file,
    arm_of_merged,
    arms_of_base,
    endpoint_questions,
    few_shot_turns,
    questions,
    teacher_predictions,
    timed_rows,
)
from journeyman.inference.dispatch import Asked, DispatchProgress, dispatch
from journeyman.inference.endpoint import open_endpoint
from journeyman.inference.engines import evaluated_server, running_engine
from journeyman.inference.model_server import ServedFolder, open_server
from journeyman.inference.prompt_proof import prove_prompts
from journeyman.inference.response_cache import ResponseCache
from journeyman.inference.server_arm import examined
from journeyman.inference.weights_proof import Reference
from journeyman.manifests import ServedFile
from journeyman.model_files import hash_of_model, size_of_model
from journeyman.protocols import EngineSettings, EvaluatedEngine, Generator, Question, Reporter
from journeyman.reasons import Reason
from journeyman.reasons.deciding import TemplateWithoutTools
from journeyman.records import BASE, TEACHER, TUNED, Example, Prediction
from journeyman.regression_suite import KINDS, MOST_TOKENS, SuiteQuestion, SuiteRun, read_suite
from journeyman.rendering.renderer import Renderer

RunningEngine = Callable[[EngineSettings], AbstractContextManager[EvaluatedEngine]]
"""Starts an engine, which is stopped at the end of the context: engines.running_engine, or one like it."""


@dataclass(frozen=True)
class Inputs:
    """The inputs of an evaluation.

    Attributes:
        sealed: file of the held-out test set.
        train_rows: file of the training rows, the source of the few-shot arm's examples.
        adapters: 'all' or role → the adapter's file.
        bases: the base's files that may ship; the first also answers without an adapter. It is the file that the
            adapters were trained on, unless that is a folder.
        folder: the run's folder, with the response cache and the user's own checks.
        merged: format → a file with the one adapter merged into it.
        server: a server that may ship; it also answers without an adapter if there are no files.
        reference: computes what the server is compared with.
    """

    sealed: Path
    train_rows: Path
    adapters: Mapping[str, Path]
    bases: Sequence[Path]
    folder: Path
    merged: Mapping[str, Path] = field(default_factory=dict)
    server: ServedFolder | None = None
    reference: Reference | None = None


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
        running_engine: RunningEngine = running_engine,
    ) -> None:
        self._running_engine = running_engine
        self._program = evaluated_server(config, inputs.folder)
        self._inputs, self._rows, self._config, self._renderer = inputs, rows, config, renderer
        self._shown = shown = few_shot_turns(inputs.train_rows, rows, config, renderer) if config.few_shot else {}
        self._refuse_control_tokens()
        self._timed = timed_rows(rows, config.timed_rows)
        self._suite = askable_suite(self._renderer) if config.regression_suite else {}
        self._answers = ResponseCache(inputs.folder)
        if told := self._answers.damage():
            reporter.say(told)
        self._reporter = reporter
        ships = len(inputs.bases) + len(inputs.merged) + (inputs.server is not None)
        arms = len(arms_of_base(shown)) + ships - 1
        elsewhere = sum(len(endpoint_questions(name, rows, config)) for name in config.endpoints)
        suite = sum(len(of_kind) for of_kind, _ in self._suite.values()) * (1 + len(inputs.adapters))
        total = arms * len(rows) + ships * len(self._timed) + elsewhere + suite
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
            self._ask_file(base, arm_of_file(base, self._inputs.bases[0]), gathered)
        for kind, path in self._inputs.merged.items():
            self._ask_file(path, arm_of_merged(kind), gathered, kind)
        if self._inputs.server is not None:
            self._ask_server(self._inputs.server, gathered)
        for name in self._config.endpoints:
            if name != TEACHER:
                self._ask_endpoint(name, gathered)
        return gathered

    def _ask_file(self, base: Path, ships: str, gathered: Gathered, merged: str | None = None) -> None:
        """`merged`: the format of a file with the adapter in its weights; None: the adapters are beside it."""
        config, adapters = self._config, {} if merged else self._inputs.adapters
        if ships in gathered.files:
            raise InputError(
                f"{base}: another file in evaluate.quantizations or base.model has the same name", "Rename one of them"
            )
        template = self._renderer.served_template
        settings = EngineSettings(
            base, adapters, config.context, config.threads, config.temperature, config.parallel,
            None if template.own else template.source, template.variables, self._program,
        )  # fmt: skip
        self._reporter.begin(f"load {base.name}", 1, "model")
        with self._running_engine(settings) as engine:
            gathered.note_engine(engine.engine_identity)
            identical = prove_prompts(self._rows, self._renderer, engine, self._reporter)
            peak = self._ask_arms(engine, settings.adapter_of, ships, gathered)
        gathered.files[ships] = ServedFile(
            path=str(base),
            sha256=hash_of_model(base),
            size_gb=size_of_model(base) / 1e9,
            load_s=engine.load_s,
            warm_up_s=engine.warm_up_s,
            peak_memory_gb=peak / 1e9 if peak else None,
            identical_prompts=identical,
            merged=merged,
        )

    def _ask_server(self, served: ServedFolder, gathered: Gathered) -> None:
        ships = SERVER if gathered.files else TUNED
        assert self._inputs.reference is not None
        with open_server(served, self._config.temperature) as server:
            found = examined(server, self._rows, self._renderer, self._inputs.reference, self._reporter)
            self._ask_arms(server, served.adapter_of, ships, gathered)
        gathered.files[ships] = found
        if gathered.engine is None and found.server is not None:
            gathered.engine = EngineIdentity(name=f"server {found.server.url}", version=found.server.version)

    def _ask_arms(
        self, generator: Generator, adapter_of: Callable[[str], str | None], ships: str, gathered: Gathered
    ) -> int:
        """Asks for the arms of what may ship, and for those of the base if it is the first; returns the peak memory."""
        first = ships == TUNED
        arms = arms_of_base(self._shown) if first else [ships]

        def put(arm: str, rows: Sequence[Example]) -> list[Question]:
            return questions(arm, rows, adapter_of, self._config, self._shown)

        self._reporter.begin("evaluate", self._progress.total, "answers")
        asked = [question for arm in arms for question in put(arm, self._rows)]
        answered = self._put(asked, generator, self._config.parallel)
        timed = self._put(put(ships, self._timed), generator, 1, replicas=1)
        if first:
            gathered.regressions = self._ask_suite(generator)
        gathered.arms += arms
        gathered.predictions += answered.predictions
        gathered.timed += timed.predictions
        return max((one.peak_memory_bytes or 0 for one in (answered, timed)), default=0)

    def _ask_endpoint(self, name: str, gathered: Gathered) -> None:
        self._reporter.begin("evaluate", self._progress.total, "answers")
        with open_endpoint(name, self._config.endpoints[name], self._config.temperature) as endpoint:
            asked = endpoint_questions(name, self._rows, self._config)
            answered = dispatch(asked, endpoint, self._answers, self._config.parallel, self._progress)
        gathered.arms.append(name)
        gathered.predictions += answered.predictions

    def _put(self, asked: Sequence[Question], engine: Generator, load: int, replicas: int | None = None) -> Asked:
        return dispatch(asked, engine, self._answers, load, self._progress, replicas=replicas)

    def _ask_suite(self, engine: Generator) -> dict[str, dict[str, SuiteRun]]:
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


def askable_suite(renderer: Renderer) -> dict[str, tuple[list[SuiteQuestion], Reason | None]]:
    """kind → the questions that the base's chat template supports, and the reason if it supports none."""
    askable: dict[str, tuple[list[SuiteQuestion], Reason | None]] = {}
    for kind in KINDS:
        questions = read_suite(kind)
        try:
            for one in questions:
                renderer.prompt_text(one.messages, one.tools)
            askable[kind] = (questions, None)
        except InputError:
            askable[kind] = ([], TemplateWithoutTools())
    return askable
