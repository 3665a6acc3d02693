"""Prints the summary of the sample that `journeyman init --from` takes."""

from __future__ import annotations

from collections import Counter

from journeyman.cli.grid import Column, print_grid
from journeyman.cli.say import PlainConsole, result_console, say_on
from journeyman.foreign import named, plain
from journeyman.proposing.lengths import Length, quantile
from journeyman.proposing.proposal import Proposal
from journeyman.proposing.survey import UNKNOWN, Survey
from journeyman.sources.nearby import size_text

_MOST_ROLES, _MOST_REASONS, _MOST_TEACHERS = 12, 4, 4


def print_survey(proposal: Proposal) -> None:
    """Prints files, formats, a table of roles with proposed checks, and why rows would be rejected."""
    console, survey = result_console(), proposal.survey
    _print_files(console, survey)
    if survey.kept:
        _print_roles(console, proposal)
    _print_rejected(console, survey)
    _print_columns(console, proposal)
    _print_role_field(console, proposal)
    if survey.cut:
        share = f"{survey.cut:,} of {len(survey.kept):,} answers"
        say_on(console, f"note: at least {share} end too early (see curate.rules.truncated)")
    refused = proposal.lengths.refused
    if refused:
        looked_at = proposal.lengths.counted + sum(refused.values())
        why = max(refused, key=lambda one: refused[one])
        say_on(
            console, f"warning: curate would drop {sum(refused.values())} of {looked_at} rows that were rendered: {why}"
        )


def _print_files(console: PlainConsole, survey: Survey) -> None:
    sample = survey.sample
    about = "" if sample.whole else f" of about {sample.rows_in_all:,}" if sample.rows_in_all else ""
    files = f"{len(sample.files)} of {sample.all_files} files" if sample.all_files > 1 else "1 file"
    say_on(
        console, f"sample: {counted(sample.rows, 'row')}{about}, from {files} ({size_text(sample.all_bytes)} in total)"
    )
    partial = sum(one.part == "beginning" for one in sample.files)
    if partial:
        say_on(console, f"note: {partial} files can only be read from the start; only their beginnings were sampled")
    for name, why in list(sample.unread.items())[:3]:
        say_on(console, f"not read: {plain(name, 60)}: {why}")
    formats = ", ".join(f"{name} {count:,}" for name, count in survey.formats.most_common() if count)
    say_on(console, f"formats: {formats or 'none'}")


def counted(number: int, what: str) -> str:
    """A number with its noun: "1 row", "2 rows"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _print_roles(console: PlainConsole, proposal: Proposal) -> None:
    unit = "tokens" if proposal.lengths.base else "tokens (estimated)"
    columns = [
        Column("role", wraps=True), Column("rows", right=True), Column("teachers", wraps=True),
        Column(f"prompt, {unit}", right=True), Column(f"answer, {unit}", right=True),
        Column("proposed checks", wraps=True),
    ]  # fmt: skip
    by_role = proposal.survey.by_role()
    lengths: dict[str, list[Length]] = {}
    for one in proposal.lengths.rows:
        lengths.setdefault(one.role, []).append(one)
    rows = []
    for role, found in list(by_role.items())[:_MOST_ROLES]:
        teachers = Counter(one.teacher for one in found).most_common()
        shown = ", ".join(f"{named(name)} {count}" for name, count in teachers[:_MOST_TEACHERS])
        more = f" and {len(teachers) - _MOST_TEACHERS} more" if len(teachers) > _MOST_TEACHERS else ""
        prompts = _range([one.prompt for one in lengths[role]])
        answers = _range([one.answer for one in lengths[role]])
        checks = ", ".join(proposal.checks[role].checks)
        rows.append([named(role), f"{len(found):,}", shown + more, prompts, answers, checks])
    print_grid(console, "sampled rows by role (lengths: median / 95th percentile)", columns, rows)
    if len(by_role) > _MOST_ROLES:
        say_on(console, f"and {len(by_role) - _MOST_ROLES} less frequent roles")


def _range(values: list[int]) -> str:
    return f"{quantile(values, 0.5):,} / {quantile(values, 0.95):,}"


def _print_rejected(console: PlainConsole, survey: Survey) -> None:
    if not survey.rejected:
        say_on(console, "no sampled row would be rejected")
        return
    say_on(console, f"{survey.rejected_share:.1%} of the sampled rows would be rejected:")
    reasons = survey.shown_reasons()
    for reason, count in reasons[:_MOST_REASONS]:
        say_on(console, f"  {count:,} × {reason}")
    if len(reasons) > _MOST_REASONS:
        say_on(console, f"  and {len(reasons) - _MOST_REASONS} more reasons")


def _print_columns(console: PlainConsole, proposal: Proposal) -> None:
    found = proposal.columns
    if found is None:
        return
    names = ", ".join(plain(name, 30) for name, _ in found.seen.most_common(10))
    say_on(console, f"{UNKNOWN} format: {counted(found.rows, 'row')} with the fields {names}")
    if found.nearest:
        say_on(console, f"  nearest known formats: {', '.join(found.nearest)}")
    columns = ", ".join(f"{name} = {plain(path, 60)}" for name, path in found.columns.items())
    if proposal.columns_set:
        say_on(console, f"  read with [data.columns]: {columns}")
    elif columns:
        say_on(console, f"  possible [data.columns]: {columns} (commented out in the config file; check and uncomment)")
    else:
        say_on(console, "  no field looks like a prompt or an answer: fill in [data.columns] in the config file")


def _print_role_field(console: PlainConsole, proposal: Proposal) -> None:
    if proposal.role_field is not None:
        say_on(console, f"roles: read from the field {plain(proposal.role_field.path)} (data.role_field)")
    elif set(proposal.checks) == {proposal.data.default_role}:
        perhaps = ", ".join(plain(one.path) for one in proposal.role_candidates[:4])
        also = f"; fields that may contain it: {perhaps} (see data.role_field in the config file)" if perhaps else ""
        say_on(console, f"roles: the log names none{also}")
