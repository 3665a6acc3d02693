"""The plan's time of evaluation, of `evaluate --bisect` and of export.

The held-out rows are never read: their number is in the dataset's manifest, and the training rows of a role stand for
their lengths.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from journeyman.artifacts import ADAPTER_FILE, read_rows
from journeyman.config import Config
from journeyman.errors import JourneymanError
from journeyman.inference.answer_trial import SUITE, Answering, measure_answers
from journeyman.inference.arm_runner import askable_suite
from journeyman.inference.engines import evaluated_server, running_engine
from journeyman.inference.response_cache import may_spare_answers
from journeyman.manifests import DatasetManifest, PlannedFile, StageTime, TrainTime
from journeyman.models.sizes import Sizes
from journeyman.protocols import EngineSettings, Reporter
from journeyman.reasons import Reason, timing
from journeyman.records import BASE, EVERY_ROLE, FEW_SHOT, TUNED, Example
from journeyman.regression_suite import MOST_TOKENS, SuiteQuestion
from journeyman.rendering.renderer import Renderer
from journeyman.retention import GeneralLoad
from journeyman.sizing.answer_time import AnswerRate, Asking, Length, Seconds, asking_seconds, length_of, rate_of

_SLOW_OPERATIONS_PER_S, _SHORTEST_S = 5e9, 1.0
_TEACHER_LENGTH = (0.85, 1.15)
"""The tuned model answers as long as the teacher did, on other rows."""
_WITHOUT_ADAPTER = 1.15
"""How much slower answers with an adapter are, if that was not measured."""
_SUITE_TOKENS, _SHARE = 60, 0.5
_NO_ANSWER = timing.AnswersNotMeasured("no answer began in the time of plan.measure_s")
_COPIED_BYTES = 1 << 26
_TEXTS, _FORWARD_SHARE, _MERGED_BYTES_PER_S = 24, 0.35, 2e8
"""Of stages.bisect: texts of which next tokens are compared; the share of a training step that is its forward pass; and
bytes of dequantized weights that are merged and written in a second."""


@dataclass(frozen=True)
class Held:
    """How many rows are held out of a role, and what its training rows say of their lengths."""

    rows: int
    prompt_tokens: float
    answer_tokens: float


def held_out(dataset: DatasetManifest, rows: Sequence[Example]) -> dict[str, Held]:
    """Role → its held-out rows, by counts and lengths only."""
    found = {}
    for role, split in dataset.splits.items():
        alike = [row for row in rows if row.role == role] or rows
        if split.test and alike:
            prompt, answer = (sum(getattr(row, f"{part}_tokens") for row in alike) for part in ("prompt", "answer"))
            found[role] = Held(split.test, prompt / len(alike), answer / len(alike))
    return found


@dataclass(frozen=True)
class AnswerTimes:
    """Of the evaluation, and of the base's answers to general prompts, before training; None: it is not asked."""

    evaluation: StageTime
    general: StageTime | None


def answer_times(
    dataset: DatasetManifest, train_rows: Path, config: Config, renderer: Renderer | None,
    served: Sequence[PlannedFile], sizes: Sizes, general: GeneralLoad, adapter: Path | None, root: Path,
    reporter: Reporter,
) -> AnswerTimes:  # fmt: skip
    """Measures how fast the engine answers, and predicts the time of all answers.

    Args:
        general: what the base is asked before training.
        adapter: a folder with an adapter of the shape that is trained; None, or without one: answers of the base count.
        root: the run's folder.
    """
    reason = _why_not(dataset, config, renderer, served, sizes)
    if reason is not None:
        return _unknown(reason, general)
    assert renderer is not None
    rows = list(read_rows(train_rows, Example))
    held = held_out(dataset, rows)
    reporter.begin("try some answers", 1, "engine")
    template, file = renderer.served_template, None if adapter is None else adapter / ADAPTER_FILE
    evaluate, suite = config.evaluate, _suite(config, renderer)
    try:
        settings = EngineSettings(
            Path(served[0].path), {EVERY_ROLE: file} if file is not None and file.is_file() else {}, evaluate.context,
            evaluate.threads, evaluate.temperature, evaluate.parallel, None if template.own else template.source,
            template.variables, evaluated_server(evaluate, root),
        )  # fmt: skip
        budget = _SHARE * config.plan.measure_s
        found = measure_answers(settings, rows, suite, evaluate.max_new_tokens, budget, running_engine)
    except JourneymanError as error:
        return _unknown(timing.AnswersNotMeasured(error.what), general)
    cached = may_spare_answers(root)
    adapters = 1 if config.train.adapters == "shared" else len(dataset.splits)
    evaluation = _predicted(found, held, config, served, bool(settings.adapters), cached, len(suite), adapters)
    return AnswerTimes(evaluation, _general(found, general, config) if general.prompts else None)


def _suite(config: Config, renderer: Renderer) -> list[SuiteQuestion]:
    """The questions of the regression suite that an evaluation asks."""
    if not config.evaluate.regression_suite:
        return []
    return [one for questions, _ in askable_suite(renderer).values() for one in questions]


def _unknown(why: Reason, general: GeneralLoad) -> AnswerTimes:
    return AnswerTimes(StageTime(why=why.record()), StageTime(why=why.record()) if general.prompts else None)


def _general(found: Answering, general: GeneralLoad, config: Config) -> StageTime:
    """Answers that an earlier training has left in the response cache are spared: so the least is none."""
    rate, most = rate_of(found.loaded[BASE], config.evaluate.parallel), config.train.retention.max_tokens
    if rate is None:
        return StageTime(why=_NO_ANSWER.record())
    prompt, length = general.mean_tokens - most, length_of(found.loaded[SUITE] or found.loaded[BASE], most)
    every = _times(found.start_s, 1) + asking_seconds(Asking(BASE, rate, general.prompts, prompt, length))
    return StageTime(seconds=every.seconds, low=0.0, high=every.high, load=rate.load)


def _why_not(
    dataset: DatasetManifest, config: Config, renderer: Renderer | None, served: Sequence[PlannedFile], sizes: Sizes
) -> Reason | None:
    if not config.plan.measure_s:
        return timing.MeasuringIsOff()
    if config.cluster.address is not None:
        return timing.TrainsOnCluster(config.cluster.address)
    if renderer is None or not served or config.evaluate.server is not None:
        return timing.AnswersElsewhere()
    rows = sum(split.test for split in dataset.splits.values())
    operations = 2.0 * sizes.linear_parameters * rows * dataset.longest_row_tokens
    if operations < _SHORTEST_S * _SLOW_OPERATIONS_PER_S:
        return timing.TooShortToMeasure(operations / _SLOW_OPERATIONS_PER_S)
    return None


def _predicted(
    found: Answering, held: Mapping[str, Held], config: Config, served: Sequence[PlannedFile], adapted: bool,
    cached: bool, suite: int, adapters: int,
) -> StageTime:  # fmt: skip
    evaluate = config.evaluate
    load = evaluate.parallel
    base, tuned, alone = rate_of(found.loaded[BASE], load), rate_of(found.loaded[TUNED], load), rate_of(found.alone, 1)
    if base is None or tuned is None or alone is None:
        return StageTime(why=_NO_ANSWER.record())
    factor = 1.0 if adapted else _WITHOUT_ADAPTER
    own = length_of(found.loaded[BASE], evaluate.max_new_tokens)
    parts: dict[str, Seconds] = {"loading": _times(found.start_s, len(served) + len(evaluate.merged))}
    rows, prompt = sum(one.rows for one in held.values()), _mean(held, "prompt_tokens")
    answer = _mean(held, "answer_tokens")
    teacher = Length(
        min(answer, evaluate.max_new_tokens),
        *(min(share * answer, evaluate.max_new_tokens) for share in _TEACHER_LENGTH),
    )
    parts[BASE] = asking_seconds(Asking(BASE, base, rows, prompt, own))
    if evaluate.few_shot:
        more = prompt + evaluate.few_shot * (prompt + answer)
        parts[FEW_SHOT] = asking_seconds(Asking(FEW_SHOT, base, rows, min(more, evaluate.context), own))
    timed = sum(min(one.rows, evaluate.timed_rows) for one in held.values())
    for size in _relative_sizes(served, len(evaluate.merged)):
        scale = factor * size
        for name, asking in (
            (TUNED, Asking(TUNED, tuned, rows, prompt, teacher)),
            ("one at a time", Asking(TUNED, alone, timed, prompt, teacher)),
        ):
            parts[name] = parts.get(name, Seconds(0, 0, 0)) + _scaled(asking_seconds(asking), scale)
    if suite:
        short = length_of(found.loaded[SUITE] or found.loaded[BASE], MOST_TOKENS)
        once = asking_seconds(Asking(SUITE, base, suite, _SUITE_TOKENS, short))
        parts[SUITE] = once + _scaled(once, factor * adapters)
    every = sum(parts.values(), Seconds(0, 0, 0))
    again = {BASE, FEW_SHOT} if cached else set()
    low = sum(one.low for name, one in parts.items() if name not in again)
    elsewhere = timing.EndpointsNotMeasured(", ".join(evaluate.endpoints)) if evaluate.endpoints else None
    return StageTime(
        seconds=every.seconds, low=low, high=every.high, parts={name: one.seconds for name, one in parts.items()},
        without=None if elsewhere is None else elsewhere.record(), prompt_tokens_per_s=_prompt_rate(alone),
        tokens_per_s=1 / alone.token_s if alone.token_s else None,
        start_s=found.start_s, tokens_per_s_loaded=load / tuned.token_s if tuned.token_s else None, load=load,
    )  # fmt: skip


def _prompt_rate(alone: AnswerRate) -> float | None:
    return alone.prompt_tokens / alone.first_s if alone.first_s else None


def _mean(held: Mapping[str, Held], part: str) -> float:
    rows = sum(one.rows for one in held.values())
    return sum(one.rows * float(getattr(one, part)) for one in held.values()) / max(1, rows)


def _times(seconds: float, count: int) -> Seconds:
    return Seconds(seconds * count, 0.7 * seconds * count, 1.5 * seconds * count)


def _scaled(one: Seconds, factor: float) -> Seconds:
    return Seconds(one.seconds * factor, one.low * factor, one.high * factor)


def _relative_sizes(served: Sequence[PlannedFile], merged: int) -> list[float]:
    """Of each file that answers, against the first, which was measured: larger files are read more slowly."""
    first = served[0].size_gb or 1.0
    return [*((one.size_gb or first) / first for one in served), *[1.0] * merged]


def export_time(served: Sequence[PlannedFile], out: Path) -> StageTime:
    """From the time to copy and hash a part of the first file: the bundle has a copy of what ships."""
    if not served:
        return StageTime(why=timing.AnswersElsewhere().record())
    largest = max(served, key=lambda one: one.size_gb)
    try:
        with Path(largest.path).open("rb") as file:
            data = file.read(_COPIED_BYTES)
        start = time.perf_counter()
        for _ in range(2):  # when it is copied, and for the manifest
            hashlib.sha256(data).digest()
        place = out / ".copied"
        place.write_bytes(data)
        seconds = time.perf_counter() - start
        place.unlink()
    except OSError as error:
        return StageTime(why=timing.AnswersNotMeasured(str(error)).record())
    every = seconds * largest.size_gb * 1e9 / max(1, len(data))
    return StageTime(seconds=every + 0.5, low=0.3 * every, high=2.5 * every + 2, parts={"copy and hash": every})


def bisect_time(evaluation: StageTime, train: TrainTime, tokens: int, row_tokens: float, sizes: Sizes) -> StageTime:
    """Roughly: torch computes some texts in two precisions, two merged files are written, and the engine loads three.

    Args:
        tokens: of training, which takes train.seconds.
        row_tokens: of a mean row.
    """
    rate = evaluation.prompt_tokens_per_s
    if evaluation.seconds is None or train.load_s is None or not rate:
        return StageTime(why=timing.BisectNotMeasured().record())
    forward = _FORWARD_SHARE * train.seconds / max(1, tokens)
    parts = {
        "torch": 2 * train.load_s + 3 * _TEXTS * row_tokens * forward,  # float32 takes about twice as long
        "merging": 4 * sizes.parameters / _MERGED_BYTES_PER_S,
        "engine": 3 * (evaluation.start_s or 0.0) + 3 * _TEXTS * row_tokens / rate,
    }
    every = sum(parts.values())
    return StageTime(seconds=every, low=0.4 * every, high=2.5 * every, parts=parts)
