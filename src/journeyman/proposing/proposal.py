"""START HERE. The proposal: a sample of the logs, a summary of it, and the settings that follow."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from journeyman.config import DataConfig
from journeyman.errors import UsageError
from journeyman.proposing.checks import CheckProposal, proposed_checks
from journeyman.proposing.fields import Columns, RoleField, proposed_columns, role_fields, with_columns
from journeyman.proposing.lengths import Lengths, measured
from journeyman.proposing.places import source_paths
from journeyman.proposing.survey import UNKNOWN, Survey, surveyed
from journeyman.reasons.files import NotUtf8
from journeyman.sources.files import log_sources, require_logs
from journeyman.sources.nearby import NoLogFound, relative
from journeyman.sources.sample import Sample, sampled

_OLD_ENCODING = "cp1252"
"""The most common encoding of text that is not UTF-8."""
_READS = 0.9
"""The share of rows that must be readable with a column mapping or encoding for it to be set automatically."""


def nothing_in(sample: Sample) -> UsageError:
    """The error for logs without a single row."""
    names = ", ".join(f"{one.path} ({one.size:,} bytes)" for one in sample.files[:5])
    more = f" and {sample.all_files - 5} more files" if sample.all_files > 5 else ""
    unread = "".join(f"; {name}: {why}" for name, why in list(sample.unread.items())[:3])
    return UsageError(f"{names}{more}: no rows found{unread}", "Name other files with --from")


@dataclass(frozen=True)
class Proposal:
    """Everything that the config file is written from.

    Attributes:
        sources: data.sources, as seen from the run folder.
        data: the settings with which the sample was read: [data] of the config, except for the sources.
        survey: the summary of the sample with these settings.
        role_field: the field for data.role_field; None if the log has roles, or if no field was found.
        role_candidates: further fields that could name the role, if the log has none.
        columns: the mapping for rows that match no format; None if there are no such rows.
        lengths: lengths in tokens.
        checks: role → its checks, the most frequent role first.
    """

    sources: list[str]
    data: DataConfig
    survey: Survey
    lengths: Lengths
    checks: dict[str, CheckProposal]
    role_field: RoleField | None = None
    role_candidates: list[RoleField] = field(default_factory=list)
    columns: Columns | None = None

    @property
    def columns_set(self) -> bool:
        """Whether data.columns is set rather than only suggested."""
        return bool(self.data.columns)


def propose(folder: Path, entries: Sequence[str], start: Path | None = None) -> Proposal:
    """Reads a sample of the logs and proposes a config for a run in `folder`. Nothing is written.

    Args:
        entries: files, folders or globs.
        start: the folder that relative entries refer to; by default the current folder.

    Raises:
        UsageError: an entry does not name anything readable.
    """
    start = start or Path.cwd()
    paths = source_paths(folder, start, entries)
    try:
        require_logs(start, [str(path) for path in paths])
    except NoLogFound as error:
        fix = f"--from {shlex.quote(error.fix)}" if error.fix else "other files with --from"
        example = "" if error.similar or not error.fix else ", for example"
        raise UsageError(f"{error.place}: {error.why}", f"Name {fix}{example}", error.details) from error
    found = log_sources(start, [str(path) for path in paths])
    sources = [relative(path, folder) for path in paths]
    data = DataConfig(sources=sources)
    sample = sampled(found, data)
    if not sample.rows:
        raise nothing_in(sample)
    survey = surveyed(sample, data)
    if not survey.kept and NotUtf8.code in survey.reasons:
        encoded = data.model_copy(update={"encoding": _OLD_ENCODING})
        tried = surveyed(sampled(found, encoded), encoded)
        if tried.answers and tried.rejected_share <= 1 - _READS:
            data, survey = encoded, tried
            sample = survey.sample
    columns = None
    if survey.strangers:
        columns = proposed_columns(survey.strangers)
        only = survey.formats[UNKNOWN] >= _READS * survey.formats.total()
        if columns.sure and only:
            mapped_data = with_columns(data, columns.columns)
            mapped = surveyed(sample, mapped_data)
            if mapped.rejected_share <= 1 - _READS:
                data, survey = mapped_data, mapped
    role_field, candidates = None, []
    if all(one.role == data.default_role for one in survey.kept):
        candidates = role_fields(survey.values)
        if survey.kept and candidates and candidates[0].sure:
            role_field, candidates = candidates[0], candidates[1:]
            data = data.model_copy(update={"role_field": role_field.path})
            survey = surveyed(sample, data)
    checks = {role: proposed_checks(rows) for role, rows in survey.by_role().items()}
    lengths = measured(survey.kept, folder)
    return Proposal(sources, data, survey, lengths, checks, role_field, candidates, columns)
