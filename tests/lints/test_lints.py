"""Each lint fires on the mistake that it is for, with its figures, and not without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from journeyman.lints.facts import (
    AdapterRun,
    BaseFacts,
    Disk,
    Facts,
    Judging,
    Limits,
    Machine,
    Memory,
    NamedModel,
    Recipe,
    RoleRows,
    WeightFile,
)
from journeyman.lints.learning_rate import usual_rate
from journeyman.lints.table import findings
from journeyman.models.known import known_base
from journeyman.reasons import Reason, machine
from journeyman.reasons import lints as why
from journeyman.reasons.dataset import FewTrainingRows
from journeyman.reasons.expectations import ExpectedSteps
from journeyman.reasons.planning import (
    ComputedPeakDoesNotFit,
    MeasuredPeakDoesNotFit,
    OverContext,
    RoleWithoutRows,
    TooFewTestRows,
    TrialOutOfMemory,
    WarmupNeverEnds,
)

QWEN = known_base("Qwen2.5-7B")
assert QWEN is not None
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RECIPE = Recipe(
    epochs=3, rows_per_step=8, learning_rate=5e-4, warmup_steps=5, rank=16, alpha=32, targets=ALL, patience=2,
    checkpoint_steps=100, checkpoint_s=60.0, validation_steps=25,
)  # fmt: skip
GOOD = Facts(
    recipe=RECIPE,
    runs={"": AdapterRun(rows=400, steps_per_epoch=50, steps=150, validations=6)},
    roles={
        "coder": RoleRows(
            train=400, val=50, test=400, effective_test=400.0, prompt_tokens=9000, answer_tokens=9000, longest_answer=90
        )
    },
    base=BaseFacts(("Qwen2.5-7B",), sizes=QWEN.geometry, file=WeightFile("a.gguf", 8.5)),
    judging=Judging(min_success=0.98, confidence=0.95, role_confidence=0.95),
    limits=Limits(max_length=2048, longest_row=2000, served_context=4096, max_new_tokens=512),
    machine=Machine("the processor", fast_bfloat16=True, cores=8, threads={"train.threads": 8}),
    disk=Disk("/run", {"bundle": 10**9}, 10**11),
    served=[WeightFile("a.gguf", 8.5)],
    train_s=3600.0,
)


def found(facts: Facts) -> list[Reason]:
    return [one.reason for one in findings(facts)]


def changed(part: str, **changes: Any) -> Facts:
    """GOOD with one of its parts changed."""
    return replace(GOOD, **{part: replace(getattr(GOOD, part), **changes)})


def with_role(**changes: Any) -> Facts:
    return replace(GOOD, roles={"coder": replace(GOOD.roles["coder"], **changes)})


def with_run(**changes: Any) -> Facts:
    return replace(GOOD, runs={"": replace(GOOD.runs[""], **changes)})


def _memory(**more: Any) -> Memory:
    return replace(Memory(None, "a.gguf", None, 5.0, 4096, 4, limit_gb=1.0), **more)


def test_a_good_plan_has_no_finding() -> None:
    assert found(GOOD) == []


CASES: Sequence[tuple[Facts, type[Reason], str]] = [
    (changed("recipe", warmup_steps=150), WarmupNeverEnds, "150 is not below the run's 150 steps"),
    (changed("recipe", warmup_steps=300), WarmupNeverEnds, "only reaches 50%"),
    (changed("recipe", checkpoint_steps=150, checkpoint_s=None), why.NoCheckpointInRun, "up to 60 minutes"),
    (changed("recipe", checkpoint_steps=150, best_is_checkpoint=True), why.NoCheckpointInRun, "the best model"),
    (changed("recipe", validation_steps=150), why.NoValidationInRun, "none is made before its end"),
    (with_role(val=0), why.NoValidationRows, "no validation rows"),
    (with_run(validations=3), why.EarlyStoppingNever, "only 3"),
    (changed("recipe", learning_rate=5e-3), why.LearningRateUnusual, "above the usual range"),
    (changed("recipe", learning_rate=1e-5), why.LearningRateUnusual, "below the usual range"),
    (changed("recipe", alpha=512), why.LearningRateUnusual, "alpha 512"),
    (changed("recipe", rows_per_step=401), why.BatchOverRows, "401 rows is larger than the training set of 400"),
    (changed("recipe", targets=ALL[:4]), why.AttentionOnly, "attention only"),
    (with_role(too_long=12), why.RowsTooLong, "coder 12"),
    (changed("limits", longest_row=40000, served_context=50000), OverContext, "context length of 32768"),
    (changed("limits", longest_row=4097), why.OverServedContext, "4,097"),
    (with_role(over_limit=3, longest_answer=700), why.AnswersOverLimit, "3 of 400"),
    (with_role(prompt_tokens=200_000), why.FewLabels, "4.3%"),
    (replace(GOOD, other_roles=["codr"]), RoleWithoutRows, "codr"),
    (with_role(train=2), FewTrainingRows, "(2)"),
    (with_role(test=100, effective_test=100.0), TooFewTestRows, "189 would"),
    (with_role(test=31, effective_test=31.0), why.CannotTell, "98% from 93%"),
    (replace(GOOD, models=[NamedModel("serve.engine_model", "qwen3-30b")]), why.OtherFamily, "Qwen3"),
    (replace(GOOD, models=[NamedModel("the logs", "mistral", may_differ=True)]), why.OtherFamily, "Mistral"),
    (changed("base", chat_template="llama-3"), why.TemplateOfOtherFamily, "chatml"),
    (changed("recipe", precision="float32", precision_asked=True), why.Float32WithoutNeed, "twice the memory"),
    (replace(GOOD, served=[WeightFile("b.gguf", 16.0)]), why.CoarserThanServed, "b.gguf (16.0)"),
    (changed("machine", threads={"train.threads": 64}), machine.MoreThreadsThanCores, "= 64"),
    (changed("machine", busy=4.0), machine.BusyProcessors, "4.0 of 8 cores"),
    (changed("disk", free=10**8), machine.DiskTooSmall, "1.0 GB to /run, where 0.1 GB"),
    (changed("disk", free=10**9 + 10**7), machine.DiskNearlyFull, "less than a tenth"),
    (replace(GOOD, memory=_memory(measured_gb=2.05, peak_gb=2.2)), MeasuredPeakDoesNotFit, "2.05 GB, and training may"),
    (replace(GOOD, memory=_memory(measured_gb=0.99, peak_gb=1.04)), MeasuredPeakDoesNotFit, "need about 1.04 GB"),
    (replace(GOOD, memory=_memory(peak_gb=1.04)), ComputedPeakDoesNotFit, "need about 1.04 GB by its packs"),
    (replace(GOOD, memory=_memory(trial=TrialOutOfMemory("it ended", certain=True))), TrialOutOfMemory, "it ended"),
    (replace(GOOD, expected={"steps": 240}, figures={"steps": 45}), ExpectedSteps, "240 expected, 45 is right"),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "kind", "text"), CASES, ids=lambda one: getattr(one, "code", None))
def test_a_mistake_is_found_with_its_figure_and_its_remedy(facts: Facts, kind: type[Reason], text: str) -> None:
    mine = [reason for reason in found(facts) if isinstance(reason, kind)]
    assert len(mine) == 1 and text in mine[0].sentence()
    assert mine[0].what_to_do() and mine[0].record().what_to_do() == mine[0].what_to_do()
    assert "{" not in mine[0].sentence() + mine[0].what_to_do()


def test_what_was_tried_prevails_over_what_was_computed() -> None:
    def levels(**more: Any) -> list[bool]:
        return [one.is_error for one in findings(replace(GOOD, memory=_memory(**more)))]

    assert levels(measured_gb=0.9, peak_gb=0.95) == []
    assert levels(measured_gb=None, peak_gb=2.0) == [False]
    assert levels(measured_gb=0.99, peak_gb=1.04) == [False], (
        "only what is expected of the whole run is above the limit"
    )
    assert levels(measured_gb=1.01, peak_gb=1.06) == [True]
    assert levels(trial=TrialOutOfMemory("killed by signal 9", certain=False)) == [False]
    assert levels(trial=TrialOutOfMemory("exit code 64", certain=True)) == [True]


def test_bfloat16_that_is_emulated() -> None:
    facts = replace(
        GOOD,
        recipe=replace(RECIPE, precision="bfloat16", precision_asked=True),
        machine=Machine("the processor", fast_bfloat16=False, cores=8),
    )
    assert [type(one) for one in found(facts)] == [why.Bfloat16Emulated]
    assert found(replace(facts, recipe=replace(facts.recipe, precision_asked=False))) == []


def test_errors_come_first_and_may_be_allowed() -> None:
    facts = replace(with_role(train=2), recipe=replace(RECIPE, warmup_steps=150))
    first, *others = findings(facts)
    assert first.is_error and first.reason.code == "warmup_never_ends"
    assert others and not any(one.is_error for one in others)
    assert not any(one.is_error for one in findings(facts, ["warmup_never_ends"]))
    assert len(findings(facts, ["warmup_never_ends"])) == len(others) + 1


def test_what_was_not_asked_for_is_no_error() -> None:
    (one,) = findings(changed("recipe", warmup_steps=150, warmup_asked=False))
    assert not one.is_error, "the default is journeyman's, not the user's mistake"


def test_a_teacher_of_another_family_is_no_error_but_what_is_served_is() -> None:
    teacher, served = (
        findings(replace(GOOD, models=[NamedModel("x", "mistral-7b", may_differ=one)])) for one in (True, False)
    )
    assert [one.is_error for one in teacher + served] == [False, True]
    assert found(replace(GOOD, models=[NamedModel("the logs", "anthropic/claude-x", may_differ=True)])) == []
    assert found(replace(GOOD, models=[NamedModel("x", "qwen2.5-coder:32b")])) == []


def test_adapters_by_role_are_compared_with_their_own_runs() -> None:
    facts = replace(
        GOOD, runs={"coder": AdapterRun(400, 50, 150, 6), "reviewer": AdapterRun(2, 1, 3, 3)}
    )  # fmt: skip
    codes = [(one.reason.code, getattr(one.reason, "adapter", "")) for one in findings(facts)]
    assert codes == [("warmup_never_ends", "reviewer"), ("batch_over_rows", "reviewer")]


def test_expectations_within_a_tenth_are_met_and_twice_the_figure_is_an_error() -> None:
    def of(expected: float) -> list[bool]:
        return [one.is_error for one in findings(replace(GOOD, expected={"steps": expected}, figures={"steps": 100}))]

    assert (of(109), of(92), of(111), of(199), of(200), of(50)) == ([], [], [False], [False], [True], [True])
    assert findings(replace(GOOD, expected={"train_hours": 3})) == [], "what is not known is not compared"


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("SmolLM2-135M", 1e-3, 2.2e-3), ("Llama-3.1-8B", 2e-4, 4.5e-4), ("Qwen3-8B", 4e-4, 7.5e-4)],
)
def test_smaller_bases_take_larger_rates(name: str, low: float, high: float) -> None:
    known = known_base(name)
    assert known is not None
    long, short = (usual_rate(known.geometry, 32, steps) for steps in (1000, 50))
    assert low < long < short < high and short == pytest.approx(1.5 * long)
    assert usual_rate(known.geometry, 64, 1000) == pytest.approx(long / 2)
