"""One-line summaries of stages, and the tables that commands print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel
from rich.text import Text

from journeyman.cli.grid import Column, print_grid
from journeyman.cli.say import PlainConsole, say_on
from journeyman.config import Config
from journeyman.foreign import named, plain
from journeyman.manifests import (
    AdapterManifest,
    BisectResult,
    BundleManifest,
    DatasetManifest,
    DecisionManifest,
    EvaluationManifest,
    IngestManifest,
    LogGroup,
    PlanManifest,
    TrainedAdapter,
)
from journeyman.records import EVERY_ROLE
from journeyman.reporting.html import gigabytes_text, rate_text, seconds_text
from journeyman.stages.plan_page import outcome, sections_of

VERDICT_STYLE = {"deploy": "bold green", "iterate": "yellow", "insufficient": "yellow", "abort": "red"}


def summary_line(result: BaseModel) -> str:
    """A stage's result in one line."""
    match result:
        case IngestManifest():
            return f"{result.read} rows read, {result.kept} kept, {result.rejected} rejected"
        case DatasetManifest():
            drops = ", ".join(f"{rule} {n}" for rule, n in result.dropped.items()) or "none"
            counts = {name: sum(getattr(s, name) for s in result.splits.values()) for name in ("train", "val", "test")}
            return f"train {counts['train']}, val {counts['val']}, test {counts['test']}; dropped: {drops}"
        case PlanManifest():
            return (
                f"{result.total_steps} steps, {result.total_tokens:,} tokens, {result.trainable_parameters:,} "
                f"trainable parameters, about {result.estimated_train_s:.0f} s "
                f"and {result.estimated_train_memory_gb:.1f} GB; {outcome(result)}"
                f"{''.join(f', {one.reason().sentence()}' for one in result.errors[:1])}"
            )
        case AdapterManifest():
            return "; ".join(_adapter_line(name, one) for name, one in result.adapters.items())
        case EvaluationManifest():
            pooled = result.roles[EVERY_ROLE]
            return f"{result.rows} rows: base {rate_text(pooled.base.success)}, tuned {rate_text(pooled.tuned.success)}"
        case DecisionManifest():
            return f"{result.verdict}; deployable now: {', '.join(map(named, result.deployed_roles)) or 'no role'}"
        case BundleManifest():
            return f"bundle for {', '.join(map(named, result.roles))}"
    return ""


def _adapter_line(name: str, adapter: TrainedAdapter) -> str:
    loss = adapter.best_loss
    best = f"validation loss {loss:.4f}" if loss is not None else "no validation rows"
    whose = "" if name == EVERY_ROLE else f"{named(name)}: "
    return f"{whose}{adapter.steps} steps in {adapter.train_s:.0f} s, best step {adapter.best_step}, {best}"


def print_plan(console: PlainConsole, plan: PlanManifest, config: Config) -> None:
    """Prints the plan's page, and whether it is a go."""
    for line in plan_lines(plan, config):
        say_on(console, line)


def plan_lines(plan: PlanManifest, config: Config) -> Iterator[str]:
    """The lines of the plan's page, and whether it is a go."""
    for section in sections_of(plan, config):
        yield ""
        yield section.title.upper()
        yield from (f"  {line}" for line in ([section.about] if section.about else []) + list(section.lines))
    yield ""
    yield outcome(plan)


def print_bisect(console: PlainConsole, result: BisectResult) -> None:
    """Prints each link compared with the first one and with the previous one."""
    title = f"{named(result.role)}: the tuned model, link by link, at {result.places} positions of its answers"
    columns = [
        Column(name, wraps=True) for name in ("link", "same token", "mean nats", "max nats", "vs. previous link")
    ]
    rows = []
    for link in result.links:
        step = f"{link.step_agreement:.0%}, {link.step_nats:.3f} nats"
        rows.append([link.name, f"{link.agreement:.0%}", f"{link.mean_nats:.3f}", f"{link.most_nats:.3f}", step])
    print_grid(console, title, columns, rows)
    say_on(
        console, f"first difference: {result.parts_at}" if result.parts_at else "no link differs from the previous one"
    )


def print_verdict_table(console: PlainConsole, evaluation: EvaluationManifest, decision: DecisionManifest) -> None:
    """Prints for each role the base and what ships, with intervals, latency, the verdict and its reasons."""
    columns = [Column("role", wraps=True), *map(Column, ("base", decision.ships, "mean / p95", "verdict"))]
    rows: list[list[str | Text]] = []
    for role, summary in evaluation.roles.items():
        made = decision.roles[role]
        speed = summary.arms[decision.ships].speed
        latency = f"{seconds_text(speed.mean_s)} / {seconds_text(speed.p95_s)}" if speed else "not known"
        deciding = [r for r in made.reasons if r.outcome == "fail"] or [
            r for r in made.reasons if r.outcome == "unknown"
        ]
        because = "; ".join(f"{r.rule} {plain(r.reason.sentence())}" for r in deciding or made.reasons[:1])
        if made.rows_needed:
            because += f"; {made.rows_needed} rows would be enough"
        rows.append([
            named(role),
            rate_text(summary.base.success),
            rate_text(summary.arms[decision.ships].success),
            latency,
            Text(made.verdict, VERDICT_STYLE[made.verdict]),
            because,
        ])  # fmt: skip
    title = f"base and {decision.ships} on the held-out test set"
    print_grid(console, title, [*columns, Column("because", wraps=True)], rows)
    shipped = evaluation.files[decision.ships]
    say_on(console, f"peak memory of the serving process: {gigabytes_text(shipped.peak_memory_gb)}")
    for arm, roles in decision.others.items():
        say_on(console, f"{arm}: {', '.join(f'{named(role)} {verdict}' for role, verdict in roles.items())}")
    for name, kinds in evaluation.regressions.items():
        changes = ", ".join(f"{kind} {one.base} → {one.tuned} of {one.n}" for kind, one in kinds.items() if one.n)
        suite = f"regression suite{'' if name == EVERY_ROLE else f' of {named(name)}'}"
        say_on(console, f"{suite}, base → tuned: {changes}")
    for note in decision.notes:
        say_on(console, f"note: {note.sentence()}")


def print_lint_table(console: PlainConsole, data: DatasetManifest) -> None:
    """Prints what the rules found, by role, and the notes that matter before training."""
    columns = [
        Column("rule"), Column("action"), Column("dropped", right=True), Column("noted", right=True),
        Column("by role", wraps=True), Column("what it means", wraps=True),
    ]  # fmt: skip
    rows: list[list[str]] = []
    for name, rule in data.rules.items():
        dropped, noted = sum(rule.dropped.values()), sum(rule.noted.values())
        if dropped or noted:
            roles = ", ".join(f"{named(role)} {n:,}" for role, n in (rule.dropped or rule.noted).items())
            rows.append([name, rule.action, f"{dropped:,}", f"{noted:,}", roles, rule.what])
    print_grid(console, f"{data.kept:,} of {data.rows_in:,} rows are kept", columns, rows)
    repetition, routing = data.repetition, data.routing
    say_on(console, f"leak check: {data.leak_check.sentence()}")
    if repetition.random_split_tests:
        say_on(
            console,
            f"a random split would have leaked {repetition.random_split_leaks:.1f} of {repetition.random_split_tests} "
            "test tasks into the training rows",
        )
    if routing is not None and routing.flagged and routing.agreement is not None and routing.found is not None:
        say_on(
            console,
            f"{routing.flagged} of {routing.tasks} tasks look like another role's, by comparing with {routing.method} "
            f"(it agrees with the log on {routing.agreement:.0%} and finds {routing.found:.0%} of swapped roles)",
        )
    for funnel in data.credit:
        steps = " → ".join(f"{step} {n:,}" for step, n in funnel.steps.items())
        say_on(console, f"credit of {named(funnel.role)}: {steps}")
    for note in data.notes:
        say_on(console, f"note: {note.sentence()}")


_MOST_REASONS = 5


def _share(group: LogGroup) -> str:
    """Successes among the rows whose outcome is logged."""
    known = group.successes + group.failures
    if not known:
        return "not logged"
    rest = f"; {group.rows - known} not logged" if known < group.rows else ""
    return f"{group.successes} ({group.successes / known:.1%}){rest}"


def print_log_table(console: PlainConsole, result: IngestManifest) -> None:
    """Prints the logs' statistics by role and by teacher."""
    columns = [Column(name, wraps=True) for name in ("", "rows", "success", "mean", "median", "p95")]
    rows = []
    groups: Mapping[str, LogGroup] = {
        EVERY_ROLE: result.total,
        **{f"role {named(name)}": group for name, group in result.by_role.items()},
        **{f"by {named(name)}": group for name, group in result.by_teacher.items()},
    }
    for name, group in groups.items():
        d = group.durations
        share = _share(group)
        times = [f"{value:.2f} s" if value is not None else "not logged" for value in (d.mean_s, d.median_s, d.p95_s)]
        rows.append([name, str(group.rows), share, *times])
    print_grid(console, "rows by role and teacher, as logged", columns, rows)
    for what, counted in (("rejected", result.reasons), ("noted", result.notes)):
        for one in counted[:_MOST_REASONS]:
            say_on(console, f"{what}: {one.rows:,} × {plain(one.sentence(), 300)}")
        if len(counted) > _MOST_REASONS:
            say_on(console, f"{what}: and {len(counted) - _MOST_REASONS} more kinds, in 01-interactions/manifest.json")
    if result.skipped:
        names = ", ".join(f"{plain(name, 60)} ({size:,} bytes)" for name, size in list(result.skipped.items())[:10])
        more = f" and {len(result.skipped) - 10} more" if len(result.skipped) > 10 else ""
        say_on(console, f"not read, because the names are not those of logs: {names}{more}")
    if result.redacted:
        counts = ", ".join(f"{kind} {n:,}" for kind, n in result.redacted.items())
        say_on(console, f"replaced by placeholders: {counts}")
