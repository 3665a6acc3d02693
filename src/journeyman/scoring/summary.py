"""Summarizes scores: each arm of a role with its interval, and the arms compared with each other on the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from journeyman.manifests import ArmSummary, Failures, Paired, Rate, RoleSummary, Speed
from journeyman.records import EVERY_ROLE, Prediction, Score
from journeyman.stats.describe import bootstrap_mean, mean, median, percentile
from journeyman.stats.groups import effective_rows, group_sizes, sign_flip
from journeyman.stats.rates import mcnemar, paired_difference, wilson

_MOST_FAILURES = 20
_MOST_LATENCIES = 200


class Results:
    """All answers, timings and scores of an evaluation.

    Attributes:
        groups: row → its group; outcomes of rows in the same group may be correlated.
        arms: the arms in the order in which they are shown.
        ships: the arms that may ship, "tuned" first.
    """

    def __init__(
        self,
        groups: Mapping[str, str],
        arms: Sequence[str],
        ships: Sequence[str],
        predictions: Sequence[Prediction],
        timed: Sequence[Prediction],
        scores: Sequence[Score],
    ) -> None:
        """`timed`: answers that were requested once more, one at a time."""
        self.groups, self.arms, self.ships = groups, arms, ships
        self._predictions, self._timed, self._scores = predictions, timed, scores

    def summary(self, role: str, confidence: float) -> RoleSummary:
        """One role's result; the role "all" covers all rows."""
        mine = [one for one in self._scores if role in (EVERY_ROLE, one.role)]
        outcomes = {arm: {one.id: one.outcome for one in mine if one.arm == arm} for arm in self.arms}
        rows = {one.id for one in mine}
        return RoleSummary(
            rows=len(rows),
            groups=len({self.groups[row] for row in rows}),
            arms={arm: self._arm(role, arm, [one for one in mine if one.arm == arm], confidence) for arm in self.arms},
            versus={
                ship: {arm: self._pair(outcomes[ship], outcomes[arm], confidence) for arm in self.arms if arm != ship}
                for ship in self.ships
            },
        )

    def _arm(self, role: str, arm: str, scores: Sequence[Score], confidence: float) -> ArmSummary:
        outcomes = [one.outcome for one in scores]
        scored = [one.id for one in scores if one.outcome != "unscored"]
        asked = [p for p in (*self._predictions, *self._timed) if p.arm == arm and role in (EVERY_ROLE, p.role)]
        # Each answer once: if all were requested one at a time anyway, none is requested again for its timing.
        alone = {p.id: p for p in asked if p.load is None or p.load == 1}
        loaded = [p for p in asked if p.load is not None and p.load > 1]
        return ArmSummary(
            success=self._rate(outcomes.count("pass"), scored, confidence),
            unscored=outcomes.count("unscored"),
            failures=_failures([one for one in scores if one.outcome == "fail"]),
            speed=speed_of(list(alone.values()), confidence),
            under_load=speed_of(loaded, confidence),
        )

    def _rate(self, passed: int, scored: Sequence[str], confidence: float) -> Rate | None:
        if not scored:
            return None
        n = len(scored)
        effective = effective_rows(group_sizes([self.groups[row] for row in scored]))
        low, high = wilson(passed * effective / n, effective, confidence)
        return Rate(passed=passed, n=n, low=low, high=high, effective_n=effective)

    def _pair(self, one: Mapping[str, str], other: Mapping[str, str], confidence: float) -> Paired:
        both = {
            row: (outcome == "pass") - (other[row] == "pass")
            for row, outcome in one.items()
            if _judged(outcome, other.get(row))
        }
        wins, losses = sum(moved > 0 for moved in both.values()), sum(moved < 0 for moved in both.values())
        if not both:
            return Paired(wins=0, losses=0, ties=0, both=0, p_value=None, difference=None, low=None, high=None)
        sizes = group_sizes([self.groups[row] for row in both])
        share = effective_rows(sizes) / len(both)
        low, high = paired_difference(wins * share, losses * share, len(both) * share, confidence)
        by_group: Counter[str] = Counter()
        for row, moved in both.items():
            by_group[self.groups[row]] += moved
        return Paired(
            wins=wins,
            losses=losses,
            ties=len(both) - wins - losses,
            both=sum(one[row] == "pass" == other[row] for row in both),
            p_value=mcnemar(wins, losses) if max(sizes) == 1 else sign_flip(by_group),
            difference=(wins - losses) / len(both),
            low=low,
            high=high,
        )


def _failures(failed: Sequence[Score]) -> list[Failures]:
    """Failures counted by check and code, the most frequent first, each with the first one's reason as an example."""
    kinds = [
        (one.check, "" if one.reason is None else str(one.reason.details.get("cause") or one.reason.code))
        for one in failed
    ]
    first = dict(zip(reversed(kinds), reversed(failed), strict=True))
    return [
        Failures(check=check, code=code, n=n, example=first[check, code].reason)
        for (check, code), n in Counter(kinds).most_common(_MOST_FAILURES)
    ]


def speed_of(predictions: Sequence[Prediction], confidence: float) -> Speed | None:
    """The speed of these answers; None if none was timed."""
    timed = [p for p in predictions if p.latency_s is not None]
    latencies = sorted(p.latency_s for p in timed if p.latency_s is not None)
    if not latencies:
        return None
    interval = bootstrap_mean(latencies, confidence)
    average, middle, late = mean(latencies), median(latencies), percentile(latencies, 0.95)
    assert average is not None and middle is not None and late is not None
    step = max(1.0, len(latencies) / _MOST_LATENCIES)
    return Speed(
        n=len(latencies),
        load=timed[0].load,
        mean_s=average,
        mean_high_s=interval[1] if interval else None,
        p50_s=middle,
        p95_s=late,
        first_token_s=mean([p.first_token_s for p in timed if p.first_token_s is not None]),
        tokens_per_s=_tokens_per_s(timed),
        latencies_s=[round(latencies[int(place * step)], 4) for place in range(min(len(latencies), _MOST_LATENCIES))],
    )


def _tokens_per_s(predictions: Sequence[Prediction]) -> float | None:
    """Over all answers together, so that short ones do not outweigh long ones."""
    tokens, seconds = 0, 0.0
    for p in predictions:
        if p.latency_s is not None and p.first_token_s is not None and p.answer_tokens > 1:
            tokens += p.answer_tokens - 1
            seconds += p.latency_s - p.first_token_s
    return tokens / seconds if seconds > 0 else None


def _judged(*outcomes: str | None) -> bool:
    return all(outcome in ("pass", "fail") for outcome in outcomes)
