"""Verdicts: rules, advice, several files, looks; and simulations showing that wrong deployments stay below the stated
level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from journeyman.config import TrainConfig
from journeyman.deciding.advice import Case
from journeyman.deciding.rules import regressions as regression_rules
from journeyman.inference.sequential_testing import confidence_of_look
from journeyman.manifests import (
    ArmSummary,
    DatasetManifest,
    Durations,
    EvaluationManifest,
    Failures,
    LogGroup,
    Paired,
    PlanManifest,
    Rate,
    RegressionResult,
    RoleDecision,
    RoleSummary,
    Rules,
    ServedFile,
    Speed,
    SplitCounts,
    TrainedAdapter,
    ValidationPoint,
)
from journeyman.reasons import Reason
from journeyman.reasons.advice import (
    FasterBase,
    FewShotIsBetter,
    GentlerTuning,
    HigherLearningRate,
    HigherRank,
    LookAtTeacher,
    LookForRefusals,
    LowerLearningRate,
    MoreEpochs,
    MoreTestRows,
    MoreTrainingRows,
    OtherQuantization,
    RowsMemorized,
    ShorterPrompts,
    SmallerInMemory,
    TimeMoreRows,
    TooFewRows,
    TrainOnWholeAnswers,
)
from journeyman.reasons.deciding import TemplateWithoutTools
from journeyman.reasons.scoring import TextMissing
from journeyman.scoring.regressions import compared
from journeyman.stages.decide import decide, decide_role
from journeyman.stages.plan import role_confidence
from journeyman.stats.groups import effective_rows
from journeyman.stats.power import power
from journeyman.stats.rates import wilson

RULES = Rules(
    max_mean_latency_s=12, min_success=0.98, max_memory_gb=10, stretch_mean_latency_s=10, stretch_success=0.99,
    confidence=0.95, role_confidence=0.95, margin=None, regression_margin=0.1, files=["base.gguf"], checks={},
)  # fmt: skip


def trained(*losses: float, **changes: Any) -> TrainedAdapter:
    points = [ValidationPoint(step=10 * number, loss=loss) for number, loss in enumerate(losses)]
    best = min(points, key=lambda point: point.loss, default=None)
    values = {
        "folder": "", "steps": 10, "total_steps": 10, "stopped_early": False, "best_step": best.step if best else 0,
        "train_s": 1, "tokens": 1, "train_loss": losses[-1] if losses else None, "validations": points,
    }  # fmt: skip
    return TrainedAdapter(**{**values, **changes})


FALLING = trained(2.0, 1.0)


def speed(mean_s: float, high_s: float | None = None, **changes: Any) -> Speed:
    values = {
        "n": 9, "load": 1, "mean_s": mean_s, "mean_high_s": mean_s if high_s is None else high_s, "p50_s": mean_s,
        "p95_s": mean_s, "first_token_s": None, "tokens_per_s": None, "latencies_s": [mean_s],
    }  # fmt: skip
    return Speed(**{**values, **changes})


def pair(wins: int, losses: int, n: int, **changes: Any) -> Paired:
    values = {"p_value": None, "difference": None, "low": None, "high": None, **changes}
    return Paired(wins=wins, losses=losses, ties=n - wins - losses, both=n - wins - losses, **values)


def rate(passed: int, n: int, confidence: float = 0.95) -> Rate:
    low, high = wilson(passed, n, confidence)
    return Rate(passed=passed, n=n, low=low, high=high, effective_n=n)


def summary(passed: int, n: int, latency: float | None = 5.0, wins: int = 5, **changes: Any) -> RoleSummary:
    arm = ArmSummary(
        success=rate(passed, n) if n else None, unscored=0, speed=None if latency is None else speed(latency)
    ).model_copy(update=changes)
    return RoleSummary(rows=n, groups=n, arms={"base": arm, "tuned": arm}, versus={"tuned": {"base": pair(wins, 0, n)}})


def decided(
    of: RoleSummary, memory_gb: float | None = 3.0, teacher_s: float | None = None, rules: Rules = RULES,
    adapter: TrainedAdapter | None = FALLING, recipe: TrainConfig | None = None, rows: int = 200,
    regressions: dict[str, RegressionResult] | None = None, arm: str = "tuned",
) -> RoleDecision:  # fmt: skip
    case = Case("coder", arm, of, rules, recipe or TrainConfig(), adapter, rows)
    teacher = None
    if teacher_s is not None:
        times = Durations(n=9, mean_s=teacher_s, median_s=teacher_s, p95_s=teacher_s)
        teacher = LogGroup(rows=9, successes=9, durations=times)
    return decide_role(case, memory_gb, 0.95, regressions or {}, teacher)


# --- rules ----------------------------------------------------------------------------------------


def test_a_latency_that_is_not_known_well_asks_for_more_timing_not_for_more_rows() -> None:
    made = decided(summary(400, 400, speed=speed(5.0, high_s=20.0)))
    assert made.verdict == "insufficient" and made.next_steps == [TimeMoreRows().record()]
    both = decided(summary(31, 31, speed=speed(5.0, high_s=20.0)))
    assert [step.code for step in both.next_steps] == [MoreTestRows.code]


def test_the_users_31_faultless_rows_are_not_enough_and_189_are() -> None:
    few = decided(summary(31, 31))
    assert (few.verdict, few.rows_needed) == ("insufficient", 189)
    assert few.next_steps[0] == MoreTestRows(189, 31).record()
    assert "158 too few" in few.next_steps[0].sentence()
    enough = decided(summary(189, 189))
    assert enough.verdict == "deploy" and enough.stretch is False
    assert decided(summary(400, 400)).stretch is True


def test_a_failed_rule_iterates_if_something_improved_and_aborts_if_nothing_did() -> None:
    assert decided(summary(50, 100)).verdict == "iterate"
    assert decided(summary(50, 100, wins=0)).verdict == "abort"
    assert decided(summary(50, 100, wins=0), teacher_s=20.0).verdict == "iterate", "faster than the teacher"
    assert decided(summary(50, 100, wins=0), teacher_s=2.0).verdict == "abort", "slower than the teacher"


def test_latency_at_the_limit_fails_and_memory_at_the_limit_passes() -> None:
    late = decided(summary(400, 400, latency=12.0), memory_gb=10.0)
    assert {r.rule: r.outcome for r in late.reasons} == {"success": "pass", "latency": "fail", "memory": "pass"}


def test_the_unknown_never_deploys() -> None:
    assert decided(summary(400, 400), memory_gb=None).verdict == "insufficient"
    assert decided(summary(0, 0, latency=None)).verdict == "insufficient"
    assert decided(summary(400, 400, unscored=3)).verdict == "insufficient"
    late = decided(summary(400, 400, speed=speed(11.0, 12.5)))
    assert late.verdict == "insufficient" and late.next_steps[-1].code == "time_more_rows"
    too_few = speed(1.0).model_copy(update={"mean_high_s": None})
    assert decided(summary(400, 400, speed=too_few)).verdict == "insufficient"


def test_a_role_may_be_compared_with_the_teacher() -> None:
    rules = RULES.model_copy(update={"margin": 0.05})

    def outcome(low: float | None, high: float | None) -> str:
        of = summary(400, 400)
        against = pair(0, 0, 9, difference=low, low=low, high=high)
        made = decided(
            of.model_copy(update={"versus": {"tuned": {**of.versus["tuned"], "teacher": against}}}), rules=rules
        )
        return {r.rule: r.outcome for r in made.reasons}["teacher"]

    assert [outcome(*ends) for ends in ((-0.04, 0.1), (-0.2, 0.1), (-0.2, -0.06), (None, None))] == [
        "pass", "unknown", "fail", "unknown",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lost", "won", "kept", "outcome"),
    [
        (0, 0, 40, "pass"),
        (4, 0, 36, "pass"),  # 10 %: not beyond the margin
        (6, 0, 34, "fail"),  # 15 %, p = 0.016
        (12, 6, 22, "pass"),  # 15 %, p = 0.12: possibly chance
        (2, 0, 6, "pass"),  # 25 % of eight, p = 0.25
        (0, 9, 31, "pass"),
    ],
)
def test_regressions_veto_if_they_exceed_the_margin_and_chance(lost: int, won: int, kept: int, outcome: str) -> None:
    result = compared([(True, False)] * lost + [(False, True)] * won + [(True, True)] * kept)
    (rule,) = regression_rules({"general": result}, 0.1, 0.95)
    assert rule.outcome == outcome, rule.reason
    made = decided(summary(400, 400), regressions={"general": result})
    assert made.verdict == ("deploy" if outcome == "pass" else "iterate")
    if outcome == "fail":
        assert made.next_steps[0].code == "gentler_tuning"


def test_a_regression_does_not_abort_a_role_without_rows() -> None:
    lost = compared([(True, False)] * 9 + [(True, True)] * 31)
    made = decided(summary(0, 0, latency=None, wins=0), regressions={"general": lost})
    assert made.verdict == "insufficient" and made.next_steps[-1].code == "gentler_tuning"


def test_what_was_forgotten_is_kept_by_general_rows_first_and_then_by_more_of_them() -> None:
    without, with_some = GentlerTuning(1e-3, 1).sentence(), GentlerTuning(1e-3, 3, 0.5).sentence()
    assert without.startswith("general rows with the base's own answers (train.retention.share = 0.1)")
    assert with_some.startswith("more general rows than now (train.retention.share is 0.5)")
    assert "fewer epochs than 3" in with_some and "epochs" not in without


def test_a_skipped_part_of_the_suite_is_not_a_rule() -> None:
    assert regression_rules({"tools": compared([], TemplateWithoutTools())}, 0.1, 0.95) == []


# --- advice ---------------------------------------------------------------------------------------


def advice(of: RoleSummary, **given: Any) -> list[Reason]:
    made = decided(of, **given)
    assert made.verdict == "iterate"
    return [step.reason() for step in made.next_steps]


def failures(**counts: int) -> list[Failures]:
    return [Failures(check="answered", code=code, n=n, example=None) for code, n in counts.items()]


def test_answers_that_never_end_get_their_own_advice() -> None:
    for found, expected in (
        (failures(cut_off=12, empty_answer=7), TrainOnWholeAnswers(12)),
        (failures(refused_answer=12, empty_answer=7), LookForRefusals(12)),
        (failures(cut_off=9, empty_answer=10), MoreEpochs(3, 2.0, 0, 1.0, 10)),
        (failures(cut_off=5, text_missing=4) + failures(cut_off=1), TrainOnWholeAnswers(6)),
    ):
        assert advice(summary(0, 19, failures=found))[0] == expected


def test_an_answer_about_refusals_is_not_a_refusal() -> None:
    """The code counts, not a word in a check's text: here the expected text contains it."""
    told = Failures(check="contains", code="text_missing", n=19, example=TextMissing("refusal").record())
    assert not any(isinstance(step, LookForRefusals) for step in advice(summary(0, 19, failures=[told])))


@pytest.mark.parametrize(
    ("adapter", "expected"),
    [
        (trained(2.0, 1.0), [MoreEpochs(3, 2.0, 0, 1.0, 10), MoreTrainingRows(200)]),
        (trained(2.0, 1.99), [HigherLearningRate(0.0005, 2.0, 1.99), MoreTrainingRows(200)]),
        (trained(2.0, 1.0, 1.2), [LowerLearningRate(0.0005, 1.0, 10, 1.2, 20), MoreTrainingRows(200)]),
        (trained(2.0, 1.0, 1.005), [HigherRank(16, 1.0), MoreTrainingRows(200)]),
        (trained(2.0, 1.0, 1.005, train_loss=0.2), [RowsMemorized(200, 0.2, 1.0)]),
        (trained(), [MoreTrainingRows(200)]),
    ],
)
def test_advice_follows_the_curves(adapter: TrainedAdapter, expected: list[Reason]) -> None:
    assert advice(summary(50, 100), adapter=adapter) == expected


def test_advice_counts_the_rows_of_the_role() -> None:
    assert advice(summary(50, 100), rows=21)[-1] == TooFewRows(21, 50)


def test_advice_looks_at_the_other_arms() -> None:
    of = summary(50, 100)
    arms = {**of.arms, "teacher": of.tuned, "few-shot": of.tuned, "tuned@Q8": of.tuned}
    versus = {"base": pair(9, 0, 100), "few-shot": pair(2, 9, 100), "tuned@Q8": pair(0, 9, 100, p_value=0.01)}
    elsewhere = {"tuned@Q8": {"base": pair(9, 0, 100)}}
    said = advice(of.model_copy(update={"arms": arms, "versus": {"tuned": versus, **elsewhere}}))
    assert said[:3] == [LookAtTeacher(50, 100), FewShotIsBetter(9, 2), OtherQuantization("tuned@Q8", 9, 0)]
    endpoint = {**versus, "tuned-by-others": pair(0, 9, 100, p_value=0.01)}
    said = advice(of.model_copy(update={"arms": arms, "versus": {"tuned": endpoint, **elsewhere}}))
    assert [step.arm for step in said if isinstance(step, OtherQuantization)] == ["tuned@Q8"], "no file that may ship"


def test_advice_on_speed_and_memory_names_what_takes_it() -> None:
    slow = summary(400, 400, speed=speed(20.0, first_token_s=12.0, tokens_per_s=7.0))
    said = advice(slow, memory_gb=11.0)
    assert said == [ShorterPrompts(12.0, 20.0), FasterBase(20.0, 7.0), SmallerInMemory()]
    assert said[1].sentence().endswith("20.0 s per answer at 7 tokens/s")


# --- several files --------------------------------------------------------------------------------


def evaluation(roles: dict[str, RoleSummary], sizes: dict[str, float], **changes: Any) -> EvaluationManifest:
    files = {
        arm: ServedFile(
            path=f"/x/{arm}.gguf", sha256="0", size_gb=size, load_s=1, warm_up_s=1, peak_memory_gb=size,
            identical_prompts=9,
        )
        for arm, size in sizes.items()
    }  # fmt: skip
    values = {
        "engine": "e", "sandbox": None, "adapter_sha256": {"all": "0"}, "rows": 9, "look": 1, "confidence": 0.95,
        "role_confidence": 0.95, "roles": roles, "files": files, "repeated": 0, "repeated_alike": 0, "regressions": {},
        "judge": [], "endpoints": {},
    }  # fmt: skip
    return EvaluationManifest(**{**values, **changes})


def two_files(of_tuned: dict[str, int], of_small: dict[str, int], n: int = 400) -> dict[str, RoleSummary]:
    made = {}
    for role in of_tuned:
        arms = {
            arm: summary(passed, n).tuned for arm, passed in (("tuned", of_tuned[role]), ("tuned@s", of_small[role]))
        }
        versus = {arm: {"base": pair(5, 0, n)} for arm in arms}
        made[role] = RoleSummary(rows=n, groups=n, arms={"base": summary(0, n).base, **arms}, versus=versus)
    return made


@pytest.mark.parametrize(
    ("small", "ships", "deployed"),
    [
        ({"all": 400, "coder": 400, "tester": 400}, "tuned@s", ["coder", "tester"]),
        ({"all": 400, "coder": 400, "tester": 200}, "tuned", ["coder", "tester"]),
        ({"all": 200, "coder": 200, "tester": 200}, "tuned", ["coder", "tester"]),
    ],
)
def test_the_file_with_most_roles_ships_and_the_smaller_one_of_equals(
    small: dict[str, int], ships: str, deployed: list[str], tmp_path: Any
) -> None:
    roles = two_files({"all": 400, "coder": 400, "tester": 400}, small)
    plan = PlanManifest.model_construct(rules=RULES)
    data = DatasetManifest.model_construct(splits={})
    adapter = type("Adapters", (), {"of": lambda self, role: FALLING})()
    made = decide(plan, data, adapter, evaluation(roles, {"tuned": 4.0, "tuned@s": 2.0}), TrainConfig(), {}, tmp_path)  # type: ignore[arg-type]
    assert (made.ships, made.deployed_roles) == (ships, deployed)
    assert set(made.others) == {"tuned", "tuned@s"} - {ships}


def test_a_regression_of_other_roles_on_a_shared_adapter_vetoes(tmp_path: Any) -> None:
    roles = {role: summary(400, 400) for role in ("all", "coder")}
    hurt = summary(100, 400)
    roles["tester"] = hurt.model_copy(update={"versus": {"tuned": {"base": pair(0, 100, 400)}}})
    plan, data = PlanManifest.model_construct(rules=RULES), DatasetManifest.model_construct(splits={})
    adapter = type("Adapters", (), {"of": lambda self, role: FALLING})()

    def verdict(**changes: Any) -> str:
        of = evaluation(roles, {"tuned": 4.0}, **changes)
        return decide(plan, data, adapter, of, TrainConfig(), {}, tmp_path).roles["coder"].verdict  # type: ignore[arg-type]

    assert verdict() == "iterate"
    assert verdict(adapter_sha256={"coder": "0", "tester": "1"}) == "deploy", "another's adapter hurts nobody here"


# --- simulated ------------------------------------------------------------------------------------


def _run(rng: np.random.Generator, rates: Sequence[float], n: int, rules: Rules) -> list[str]:
    """The verdicts of one simulated run: each role's rows are drawn with its true rate, all else is within limits."""
    return [
        decided(summary(passed, n, success=rate(passed, n, rules.role_confidence)), rules=rules).verdict
        for passed in rng.binomial(n, rates).tolist()
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("n", "threshold"), [(27, 0.5), (60, 0.9), (400, 0.98)])
def test_wrong_deployments_stay_under_the_level_and_the_power_is_what_the_plan_says(n: int, threshold: float) -> None:
    """10,000 runs of four roles with known rates: all just below the threshold, then all at the plan's power_rate."""
    runs, roles, confidence = 10_000, 4, 0.95
    of_roles = {f"role {i}": SplitCounts(train=9, val=9, test=n, effective_test=n) for i in range(roles)}
    corrected = 1 - (1 - confidence) / roles
    assert role_confidence(DatasetManifest.model_construct(splits=of_roles), confidence, 1) == corrected
    rules = RULES.model_copy(update={"min_success": threshold, "role_confidence": corrected})
    rng = np.random.default_rng(n)
    wrong = sum("deploy" in _run(rng, [threshold - 1e-4] * roles, n, rules) for _ in range(runs)) / runs
    assert wrong <= 1 - confidence, "any role deployed that must not be"
    good = (1 + threshold) / 2
    right = [verdict == "deploy" for _ in range(runs // 4) for verdict in _run(rng, [good] * roles, n, rules)]
    assert np.mean(right) == pytest.approx(power(n, good, threshold, corrected), abs=0.015)


def test_two_files_to_choose_from_do_not_raise_the_level() -> None:
    """10,000 runs of four roles in which either of two independent files may pass: the plan halves each error rate."""
    n, threshold, roles, files = 120, 0.9, 4, 2
    of_roles = {f"role {i}": SplitCounts(train=9, val=9, test=n, effective_test=n) for i in range(roles)}
    corrected = role_confidence(DatasetManifest.model_construct(splits=of_roles), 0.95, files)
    least = next(k for k in range(n + 1) if wilson(k, n, corrected)[0] >= threshold)
    drawn = np.random.default_rng(5).binomial(n, threshold - 1e-4, (10_000, roles * files))
    assert (drawn >= least).any(axis=1).mean() <= 0.05


def test_correlated_rows_of_a_group_do_not_raise_the_level() -> None:
    """10,000 runs of 40 sessions whose 1 to 9 rows pass or fail together: counted as rows, far too many would pass."""
    rng, threshold = np.random.default_rng(6), 0.9
    sizes = rng.integers(1, 10, 40)
    n, effective = int(sizes.sum()), effective_rows(sizes.tolist())
    assert effective < 40 < n
    passed = (rng.random((10_000, 40)) < threshold - 1e-4) @ sizes
    as_groups = np.mean([wilson(k * effective / n, effective, 0.95)[0] >= threshold for k in passed.tolist()])
    as_rows = np.mean([wilson(k, n, 0.95)[0] >= threshold for k in passed.tolist()])
    assert as_groups <= 0.05 < as_rows


def test_looking_again_and_again_does_not_pass_by_luck() -> None:
    """10,000 users evaluate ten adapters, all just too bad, on the same rows: at most twice 5 % deploy one."""
    n, threshold = 400, 0.98
    least = [
        next(k for k in range(n + 1) if wilson(k, n, confidence_of_look(0.95, look))[0] >= threshold or k == n)
        for look in range(1, 11)
    ]
    drawn = np.random.default_rng(7).binomial(n, threshold - 1e-4, (10_000, 10))
    assert (drawn >= np.array(least)).any(axis=1).mean() <= 0.1
    assert (drawn >= least[0]).any(axis=1).mean() > 0.1, "at the level of the first look they would"
