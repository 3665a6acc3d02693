"""The probe as a page for people: sections of plain lines, which probe.md and the terminal show in their own way."""

from __future__ import annotations

from collections.abc import Iterator

from journeyman.foreign import markdown, named
from journeyman.manifests import Rate
from journeyman.probing.recommending import COPY
from journeyman.probing.record import Advice, ProbedRole, ProbeRecord, Recommendation
from journeyman.reasons import ReasonRecord
from journeyman.reasons.probing import PARTS, points
from journeyman.records import BASE, EVERY_ROLE, FEW_SHOT, TEACHER
from journeyman.stages.plan_page import Section

ADVICE: dict[Advice, str] = {
    "prompt": "prompt the base instead of tuning it",
    "tune": "tune it",
    "more_data": "get more data first",
    "stop": "stop: tuning on these rows does not get there",
    "check": "look at the rows and checks first: copying passes them",
    "cannot_tell": "the rows cannot tell",
}
_ARMS = {
    TEACHER: "the teacher, as logged",
    COPY: "the most similar training answer, copied",
    BASE: "the base, with its bare prompt",
    FEW_SHOT: "the base, with examples in its prompt",
}
_RULES = (
    "copying the most similar training answer reaches the threshold: look at the rows and checks first",
    "the base reaches it, with or without examples in its prompt: prompt it",
    "a model tuned on a part of the rows reaches it, or the prediction for all rows does: tune it",
    "a prompt beats the tuned model, and what is predicted for all rows is not better: prompt it",
    "the prediction stays below, and more rows are shown to help: get more data first",
    "the prediction stays below, and not even 16 times the rows would do: stop",
    "otherwise the rows cannot tell",
)


def sections_of(record: ProbeRecord) -> list[Section]:
    """The page, in plain text: whoever shows it makes names from logs and configs harmless."""
    every = record.roles[EVERY_ROLE]
    roles = {name: one for name, one in record.roles.items() if name != EVERY_ROLE}
    sections = [
        Section("Should you tune at all?", list(_advised(every.recommendation))),
        Section(
            "Who passes how many rows", [*_arms(record, every)],
            f"Everybody answers the same {record.rows:,} validation rows, which are not trained on. A range says where "
            f"the true share is, at {every.confidence:.1%} confidence.",
        ),
        Section(
            "What more rows bring", [*_curve(record, every)],
            "The base is tuned on parts of the training rows, to see how its success grows with them.",
        ),
    ]  # fmt: skip
    if roles:
        confidence = next(iter(roles.values())).confidence
        about = f"Each role by itself. Fewer rows, so wider ranges, at {confidence:.1%} confidence."
        sections.append(Section("By role", [line for name, one in roles.items() for line in _role(name, one)], about))
    sections.append(
        Section(
            "How this is decided", [*_RULES, *_know(record)],
            "Rules in their order: the first that applies decides. The threshold is decide.min_success, "
            f"{record.threshold:.0%}; it is reached if the whole range is at or above it.",
        )
    )  # fmt: skip
    return sections


def page_of(record: ProbeRecord) -> str:
    """The page as Markdown."""
    lines = ["# Probe", ""]
    for section in sections_of(record):
        about = [markdown(section.about), ""] if section.about else []
        lines += [f"## {section.title}", "", *about, *(f"- {markdown(line)}" for line in section.lines), ""]
    return "\n".join(lines)


def advice_text(one: Recommendation) -> str:
    """What is advised, in a few words."""
    lean = f"; more likely than not: {ADVICE[one.leans]}" if one.leans is not None else ""
    return f"{ADVICE[one.advice]}{lean}"


def _advised(one: Recommendation) -> Iterator[str]:
    yield f"advice: {advice_text(one)}"
    yield from (reason.sentence() for reason in one.reasons)
    fixes = dict.fromkeys(fix for reason in one.reasons if (fix := _what_to_do(reason)))
    yield from (f"next: {fix}" for fix in fixes)


def _what_to_do(reason: ReasonRecord) -> str:
    return reason.what_to_do()


def _arms(record: ProbeRecord, role: ProbedRole) -> Iterator[str]:
    parts = {one.arm: one for one in record.parts}
    for arm, found in role.summary.arms.items():
        who = _ARMS.get(arm) or f"the base tuned on {parts[arm].rows[EVERY_ROLE]:,} rows"
        line = f"{who}: {_rate_text(found.success)}"
        if found.unscored:
            line += f"; {found.unscored} could not be scored"
        pair = role.summary.versus.get(arm, {}).get(BASE)
        if arm != BASE and pair is not None and pair.difference is not None:
            assert pair.low is not None and pair.high is not None
            line += f"; against the base: {points(pair.difference, pair.low, pair.high)}"
        answered = found.unscored + (0 if found.success is None else found.success.n)
        if answered < role.summary.rows:
            line += f"; the other {role.summary.rows - answered} rows were not asked"
        yield line
        if arm == FEW_SHOT:
            yield f"examples in its prompt: {_shown(record)}; the first training rows that fit, as an evaluation does"


def _shown(record: ProbeRecord) -> str:
    return ", ".join(f"{count} for {named(role)}" for role, count in record.shown.items())


def _curve(record: ProbeRecord, role: ProbedRole) -> Iterator[str]:
    for part in record.parts:
        loss = part.losses.get(EVERY_ROLE)
        shown = f", validation loss {loss:.3f}" if loss is not None else ""
        found = role.summary.arms.get(part.arm)
        rate = "not scored" if found is None else _rate_text(found.success)
        took = f"{part.rows[EVERY_ROLE]:,} rows, {part.steps} steps in {part.train_s:.0f} s"
        yield f"{PARTS.get(part.name, part.name)} of the rows ({took}): {rate}{shown}"
    yield from (one.sentence() for one in record.left_out)
    yield f"all {role.train_rows:,} rows, predicted: {prediction_text(role)}"


def prediction_text(role: ProbedRole) -> str:
    """The predicted success with all training rows."""
    one = role.predicted
    return "not known" if one is None else f"{one.low:.0%} to {one.high:.0%}, most likely about {one.likely:.0%}"


def _role(name: str, one: ProbedRole) -> Iterator[str]:
    rates = []
    for arm, short in ((BASE, "base"), (FEW_SHOT, "with examples"), (COPY, "copied")):
        found = one.summary.arms.get(arm)
        if found is not None and found.success is not None:
            rates.append(f"{short} {found.success.passed} of {found.success.n}")
    yield f"{named(name)}: {advice_text(one.recommendation)} ({', '.join(rates)}; predicted {prediction_text(one)})"
    first = next(iter(one.recommendation.reasons), None)
    if first is not None:
        yield f"{named(name)}, because: {first.sentence()}"


def _know(record: ProbeRecord) -> Iterator[str]:
    if record.rows < record.of_rows:
        yield f"of {record.of_rows:,} validation rows, {record.rows:,} were asked: at most 300 of each role"
    yield (
        "the parts are trained with the run's recipe and number of epochs, so a smaller part also takes fewer steps; "
        "the warm-up is shortened with them"
    )
    yield (
        "the validation rows also decide when training stops early, so figures of tuned models may be a little too good"
    )
    yield (
        "the prediction continues the curve for the doublings that are left, from a plateau to one and a half times as "
        "steep; it does not see success that appears suddenly"
    )
    yield "the held-out test rows were not opened: the evaluation's figures are not touched by what is chosen here"


def _rate_text(rate: Rate | None) -> str:
    if rate is None:
        return "not known"
    related = "" if rate.effective_n == rate.n else f", which count as {rate.effective_n:.1f} independent ones"
    return f"{rate.passed} of {rate.n} rows ({rate.low:.0%} to {rate.high:.0%}){related}"
