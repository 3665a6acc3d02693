"""What tuning cost of the probes: the adapter against the base, question by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from journeyman.manifests import CheckRule, ProbeResult
from journeyman.probes import Probe, ProbeRun
from journeyman.reasons import Reason
from journeyman.records import Prediction, ProbeAnswer
from journeyman.scoring.answered import ENDINGS
from journeyman.scoring.checks import Checks, judge
from journeyman.scoring.contracts import Answer, Limits
from journeyman.stats.groups import one_sided_mcnemar


def probe_answers(adapter: str, kind: str, run: ProbeRun) -> list[ProbeAnswer]:
    """Every question with both answers and what its checks say."""
    return [
        ProbeAnswer(
            adapter=adapter, probe=kind, id=probe.id, task=probe.task, base=base.text, tuned=tuned.text,
            base_passes=_passes(probe, base), tuned_passes=_passes(probe, tuned),
            base_ends=base.finish_reason in ENDINGS, tuned_ends=tuned.finish_reason in ENDINGS,
        )
        for probe, base, tuned in zip(run.probes, run.base, run.tuned, strict=True)
    ]  # fmt: skip


def probe_results(runs: Mapping[str, ProbeRun], answers: Sequence[ProbeAnswer]) -> dict[str, ProbeResult]:
    """One adapter's results: each kind of probe, and whether it still ends its answers."""
    results = {}
    for kind, run in runs.items():
        mine = [one for one in answers if one.probe == kind]
        results[kind] = compared([(one.base_passes, one.tuned_passes) for one in mine], run.note)
    results["stopping"] = compared([(one.base_ends, one.tuned_ends) for one in answers])
    return results


def compared(pairs: Sequence[tuple[bool, bool]], note: Reason | None = None) -> ProbeResult:
    """(base passes, tuned passes) of each question → the result."""
    wins, losses = sum(t and not b for b, t in pairs), sum(b and not t for b, t in pairs)
    return ProbeResult(
        n=len(pairs),
        base=sum(b for b, _ in pairs),
        tuned=sum(t for _, t in pairs),
        wins=wins,
        losses=losses,
        p_value=one_sided_mcnemar(wins, losses),
        note=None if note is None else note.record(),
    )


def _passes(probe: Probe, said: Prediction) -> bool:
    answer = Answer(said.text, said.finish_reason, probe.check, Limits(), said.calls, task=probe.task)
    return judge(answer, CheckRule(checks=probe.checks), Checks(Path())).finding.outcome == "pass"
