"""A report of `journeyman monitor` as tables for the terminal, with notes below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from journeyman.cli.grid import Column, print_grid
from journeyman.cli.say import PlainConsole, say_on
from journeyman.foreign import named, plain
from journeyman.monitoring.report import Answers, Compared, Latency, Recorder, Report, RoleReport, Share

_UNKNOWN, _NONE = "not known", "–"
_MOST_NAMED = 5
_EFFECTS = {
    "length": "largest distance of cumulative shares",
    "vocabulary": "difference of the shares of unknown words",
    "tools": "share of prompts with another set",
    "distance": "probability of being farther from the training",
}
_FIGURES = {"length": "words, median", "vocabulary": "unknown words, mean share", "distance": "distance, median"}
_TIMES = ("first byte", "whole")
_SOURCES = {"exchanges": "judged exchanges", "rows": "rows", "nothing": "nothing"}


def print_report(console: PlainConsole, report: Report) -> None:
    """Prints what a person wants to know first, then the details."""
    say_on(console, f"{_minute(report.since)} to {_minute(report.at)} UTC: {_read(report)}")
    say_on(console, f"recorder: {_recorder(report.recorder)}")
    if report.roles:
        _print_requests(console, report.roles)
        _print_answers(console, report.roles)
        _print_times(console, report.roles)
        _print_training(console, report.roles)
    for change in report.changes:
        if change.at >= report.since[:10]:
            why = f": {plain(change.why, 200)}" if change.why else ""
            say_on(
                console,
                f"{_minute(change.at)} {named(change.role)}: {change.action}, {change.before} → {change.mode}{why}",
            )
    for role in report.roles:
        for note in _notes(role):
            say_on(console, f"{named(role.role)}: {note}")
    for one in report.notes:
        say_on(console, f"note: {one.sentence()}")


def _minute(time: str) -> str:
    return plain(time[:16].replace("T", " "))


def _read(report: Report) -> str:
    return f"{report.read:,} lines of {_SOURCES[report.source]} read" if report.read else "nothing read"


def _recorder(recorder: Recorder) -> str:
    told = {
        "recording": "recording", "trouble": f"cannot write its rows: {plain(recorder.trouble, 200)}",
        "silent": f"at work, but {recorder.address} does not answer", "stopped": "none is at work",
        "unknown": "at work on a port that record.port does not say",
    }[recorder.state]  # fmt: skip
    return f"{told}; {recorder.lost:,} exchanges not recorded completely" if recorder.lost else told


def _print_requests(console: PlainConsole, roles: list[RoleReport]) -> None:
    columns = [
        Column("role", wraps=True), Column("route"), Column("requests", right=True), Column("by student", right=True),
        Column("fallbacks", right=True), Column("saved", right=True),
    ]  # fmt: skip
    rows = [
        [
            named(one.role), one.mode or _NONE, f"{one.requests:,}", _part(one.by_student, one.requests),
            _NONE if one.fallbacks is None else f"{one.fallbacks.share:.1%}", _saved(one),
        ]
        for one in roles
    ]  # fmt: skip
    print_grid(console, "requests", columns, rows)


def _print_answers(console: PlainConsole, roles: list[RoleReport]) -> None:
    columns = [
        Column("role", wraps=True), Column("who"), Column("answers", right=True), Column("success", right=True),
        Column("errors", right=True), Column("tokens in / out", right=True),
    ]  # fmt: skip
    rows = []
    for role, who, answers in _by_answerer(roles):
        success = _UNKNOWN if answers.success is None else _interval(answers.success)
        tokens = f"{_short(answers.prompt_tokens)} / {_short(answers.answer_tokens)}" if answers.counted else _UNKNOWN
        rows.append([role, who, f"{answers.requests:,}", success, f"{sum(answers.errors.values()):,}", tokens])
    print_grid(console, "answers, with the interval of 95 % of their success", columns, rows)


def _print_times(console: PlainConsole, roles: list[RoleReport]) -> None:
    columns = [Column("role", wraps=True), Column("who"), *(Column(name, right=True) for name in _TIMES)]
    rows = [[role, who, _times(answers.first), _times(answers.whole)] for role, who, answers in _by_answerer(roles)]
    print_grid(console, "seconds until the first byte and until the end, p50 / p95 / p99", columns, rows)


def _by_answerer(roles: list[RoleReport]) -> Iterator[tuple[str, str, Answers]]:
    """Role, who and what, of those who answered; a role is named once."""
    for one in roles:
        name = named(one.role)
        for who, answers in _answerers(one):
            if answers.requests or answers.success is not None:
                yield name, who, answers
                name = ""


def _answerers(one: RoleReport) -> tuple[tuple[str, Answers], ...]:
    return ("teacher", one.teacher), ("student", one.student), ("shadow", one.shadow)


def _print_training(console: PlainConsole, roles: list[RoleReport]) -> None:
    columns = [
        Column("role", wraps=True), Column("drift of inputs", wraps=True), Column("other prompts", right=True),
        Column("train again"),
    ]  # fmt: skip
    rows = [
        [
            named(one.role), _drift(one), _UNKNOWN if one.prompts is None else _interval(one.prompts.share),
            _train_again(one),
        ]
        for one in roles
    ]  # fmt: skip
    print_grid(console, "compared with the training", columns, rows)


def _notes(one: RoleReport) -> Iterator[str]:
    for reason in one.train_again:
        yield f"train again: {reason.sentence()}"
    counts = [f"{who} {made.success.of:,} {made.success.unit}" for who, made in _answerers(one) if made.success]
    if counts:
        yield f"success counts: {', '.join(counts)}"
    if one.success_unknown is not None:
        yield f"success: {one.success_unknown.sentence()}"
    if one.fallback_reasons:
        yield f"fallbacks: {_counted(one.fallback_reasons)}"
    for who, answers in _answerers(one):
        if answers.errors:
            yield f"errors of the {who}: {_counted(answers.errors)}"
    beside = [f"{count:,} {what}" for what, count in (("cancelled", one.cancelled), ("wrong", one.wrong)) if count]
    if beside:
        yield f"requests: {', '.join(beside)}"
    yield from _canary(one)
    if one.drift is not None and one.drift.unknown is not None:
        yield f"drift: {one.drift.unknown.sentence()}"
    for test in one.drift.tests if one.drift else ():
        if test.found:
            yield _test(test)
    if one.prompts is not None and one.prompts.differences:
        yield f"prompts that differ from the {one.prompts.against}'s: {_counted(one.prompts.differences)}"
    if one.prompts_unknown is not None:
        yield f"other prompts: {one.prompts_unknown.sentence()}"
    if one.saved_unknown is not None:
        yield f"saved: {one.saved_unknown.sentence()}"
    if one.saved is not None and one.saved.requests < one.saved.of:
        yield f"saved: {one.saved.requests:,} of {one.saved.of:,} answers say how many tokens they have"


def _canary(one: RoleReport) -> Iterator[str]:
    figures = one.canary_figures
    if one.canary and one.canary_why:
        yield f"verdict so far: {plain(one.canary.replace('_', ' '), 40)}: {plain(one.canary_why, 300)}"
    if figures.keys() >= {"difference", "difference_low", "difference_high"}:
        low, high = figures["difference_low"], figures["difference_high"]
        interval = f"{low:+.1%} to {high:+.1%}, at any time"
        yield f"student fails {figures['difference']:+.1%} more than the teacher ({interval})"
    if any(one.pairs.values()):
        yield f"compared with the teacher: {_counted({name: count for name, count in one.pairs.items() if count})}"


def _test(test: Compared) -> str:
    figures = ""
    if test.recorded is not None and test.trained is not None:
        figures = f"; {_FIGURES[test.test]}: {test.recorded:.3g} recorded, {test.trained:.3g} trained"
    effect = f"{_EFFECTS[test.test]} {test.effect:.2f}, from {test.least:g} on it counts"
    return f"drift of {test.test}: p {test.p_value:.2g}; {effect}{figures}"


def _drift(one: RoleReport) -> str:
    if one.drift is None or one.drift.unknown is not None:
        return _UNKNOWN
    return ", ".join(test.test for test in one.drift.tests if test.found) or "none found"


def _train_again(one: RoleReport) -> str:
    """Without anything to judge by, that nothing speaks for it means nothing."""
    if one.train_again:
        return "yes"
    known = (one.drift is not None and one.drift.unknown is None) or one.student.success or one.shadow.success
    return "no" if known else _UNKNOWN


def _saved(one: RoleReport) -> str:
    if one.saved is not None:
        return f"${one.saved.dollars:,.2f}"
    return _NONE if one.saved_unknown is None else _UNKNOWN


def _interval(share: Share) -> str:
    return f"{share.share:.0%} ({share.low * 100:.0f}–{share.high:.0%})"


def _part(count: int | None, of: int) -> str:
    return f"{count / of:.0%}" if of and count is not None else _NONE


def _times(latency: Latency | None) -> str:
    if latency is None:
        return _UNKNOWN
    return " / ".join(_seconds(value) for value in (latency.p50, latency.p95, latency.p99))


def _seconds(milliseconds: float) -> str:
    seconds = milliseconds / 1000
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}"


def _short(count: int) -> str:
    for size, name in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.1f}{name}"
    return str(count)


def _counted(counts: Mapping[str, int]) -> str:
    """The most frequent ones, with their numbers."""
    ordered = sorted(counts.items(), key=lambda one: -one[1])
    shown = ", ".join(f"{named(name)} {count:,}" for name, count in ordered[:_MOST_NAMED])
    return shown + (f" and {len(ordered) - _MOST_NAMED} more kinds" if len(ordered) > _MOST_NAMED else "")
