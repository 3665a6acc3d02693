"""The plan's times, in words."""

from __future__ import annotations

from collections.abc import Iterator

from journeyman.durations import spelled
from journeyman.foreign import named
from journeyman.manifests import PlanManifest, StageTime, TrainTime

_MOST_EPOCHS = 10


def time_lines(plan: PlanManifest) -> Iterator[str]:
    """Lines of the page's section on time."""
    yield f"device: {plan.device_name or 'the processor'}, computing in {plan.precision}"
    time = plan.train_time
    if time is None:  # made by an older version
        yield f"estimated time: {spelled(plan.estimated_train_s)}"
        return
    yield f"training: about {spelled(time.seconds)}, between {spelled(time.low)} and {spelled(time.high)}{_parts(time)}"
    if len(time.epochs) > 1:
        more = len(time.epochs) - _MOST_EPOCHS
        others = f", and {more:,} more" if more > 0 else ""
        shown = ", ".join(spelled(one) for one in time.epochs[:_MOST_EPOCHS])
        yield f"by epoch (once through all rows): {shown}{others}"
    yield "training ends sooner if the validation loss stops falling"
    if time.load_s is not None:
        saves = "" if time.checkpoint_s is None else f"; each checkpoint takes {spelled(time.checkpoint_s)}"
        yield f"besides: {spelled(time.load_s)} until the first step is made{saves}"
    if plan.general_time is not None:
        asked = f"the base answers {plan.general_prompts:,} general prompts"
        yield f"before the first step: {asked}, {_stage(plan.general_time)}"
    yield _basis(plan, time)
    if busy := _busy(time):
        yield busy
    yield from _later(plan)


def _busy(time: TrainTime) -> str:
    """Says that other work was in the way, if it was."""
    seen = [
        (time.others, 0.15, "other processes used {:.0%} of the cores"),
        (time.waiting, 0.3, "a task waited for a core {:.0%} of the time"),
        (time.stolen, 0.05, "the host took {:.0%} of the processors"),
    ]
    known = [text.format(value) for value, most, text in seen if value is not None and value > most]
    return f"the machine was busy meanwhile ({', '.join(known)}): on a quiet one, training is faster" if known else ""


def _later(plan: PlanManifest) -> Iterator[str]:
    """The stages after training."""
    evaluation = plan.evaluate_time
    if evaluation is not None:
        yield f"evaluation: {_stage(evaluation)}"
        if evaluation.parts:
            parts = sorted(evaluation.parts.items(), key=lambda one: -one[1])
            yield f"evaluation by part: {', '.join(f'{named(name)} {spelled(one)}' for name, one in parts)}"
        if evaluation.seconds is not None:
            reads, writes, loaded = (
                _rate(one)
                for one in (evaluation.prompt_tokens_per_s, evaluation.tokens_per_s, evaluation.tokens_per_s_loaded)
            )
            yield (
                f"measured: the engine reads {reads} and writes {writes} tokens a second alone, and writes {loaded} "
                f"for {evaluation.load} requests at a time; the time of checks is left out"
            )
        if evaluation.without is not None:
            yield evaluation.without.sentence()
    for name, one in (("export (copies and hashes)", plan.export_time), ("evaluate --bisect", plan.bisect_time)):
        if one is not None:
            yield f"{name}: {_stage(one)}"


def _rate(tokens_per_s: float | None) -> str:
    return "a number that is not known of" if tokens_per_s is None else f"{tokens_per_s:,.0f}"


def _stage(time: StageTime) -> str:
    if time.seconds is None:
        return "not known" + ("" if time.why is None else f": {time.why.sentence()}")
    return f"about {spelled(time.seconds)}, between {spelled(time.low or 0.0)} and {spelled(time.high or 0.0)}"


def _parts(time: TrainTime) -> str:
    if not time.validation_s:
        return ""
    return f"; {spelled(time.validation_s)} of it to validate, which tells when the model no longer gains"


def _basis(plan: PlanManifest, time: TrainTime) -> str:
    """What the figures rest on."""
    if time.source == "formula":
        why = "" if time.why is None else f", because {time.why.sentence()}"
        return (
            f"not measured{why}: estimated from the rate of matrix products, {plan.matrix_gflops:,.0f} GFLOP/s, which "
            "may be far off"
        )
    noise = "not repeated" if time.spread is None else f"repetitions differ by {time.spread:.1%}"
    fits = "" if time.residual is None else f", and one is predicted from the others within {time.residual:.1%}"
    return (
        f"measured on this machine in {spelled(time.measured_s or 0.0)}: {time.groups} different "
        f"part{'s' * (time.groups != 1)} of its steps, tried {time.repetitions} times in all; {noise}{fits}"
    )
