"""ingest: log files → typed interactions, rejected lines, and what the logs say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from journeyman.artifacts import write_rows
from journeyman.errors import InputError
from journeyman.manifests import Durations, IngestManifest, LogGroup
from journeyman.ports import Reporter
from journeyman.records import Interaction, Rejected
from journeyman.sources.interactions import read_interactions
from journeyman.stats.describe import mean, median, percentile

VERSION = 1


def ingest(sources: Sequence[Path], out: Path, reporter: Reporter) -> IngestManifest:
    """Reads every source into `out`.

    Raises:
        UsageError: a source is missing or is a folder.
        InputError: no source holds a single usable interaction.
    """
    rejected: list[Rejected] = []
    tally = _Tally()
    reporter.begin("ingest", sum(path.stat().st_size for path in sources if path.is_file()), "bytes")

    def kept() -> Iterator[Interaction]:
        done = 0
        for path in sources:
            for row in read_interactions(path):
                if isinstance(row, Rejected):
                    rejected.append(row)
                else:
                    tally.add(row)
                    yield row
            done += path.stat().st_size
            reporter.advance(done)

    count = write_rows(out / "interactions.jsonl.zst", kept())
    write_rows(out / "rejected.jsonl", rejected)
    if count == 0:
        reason = f"; the first rejected line: {rejected[0].reason}" if rejected else ""
        names = ", ".join(str(path) for path in sources)
        raise InputError(f"{names}: no usable interaction in {len(rejected)} lines{reason}", "Check data.sources")
    return tally.manifest(len(rejected))


class _Tally:
    def __init__(self) -> None:
        self.by_role: dict[str, list[Interaction]] = defaultdict(list)
        self.by_teacher: dict[str, list[Interaction]] = defaultdict(list)
        self.rows: list[Interaction] = []

    def add(self, row: Interaction) -> None:
        # Only what the figures need is kept: the texts stay on disk.
        light = row.model_copy(update={"messages": [], "output": None, "extra": {}, "check": {}})
        self.rows.append(light)
        self.by_role[row.role].append(light)
        self.by_teacher["/".join(filter(None, (row.provider, row.model))) or "unknown"].append(light)

    def manifest(self, rejected: int) -> IngestManifest:
        return IngestManifest(
            read=len(self.rows) + rejected,
            kept=len(self.rows),
            rejected=rejected,
            total=_group(self.rows),
            by_role={role: _group(rows) for role, rows in sorted(self.by_role.items())},
            by_teacher={teacher: _group(rows) for teacher, rows in sorted(self.by_teacher.items())},
        )


def _group(rows: Sequence[Interaction]) -> LogGroup:
    successes = [row for row in rows if row.succeeded]
    seconds = [row.duration_ms / 1000 for row in successes if row.duration_ms is not None]
    durations = Durations(
        n=len(seconds), mean_s=mean(seconds), median_s=median(seconds), p95_s=percentile(seconds, 0.95)
    )
    return LogGroup(rows=len(rows), successes=len(successes), durations=durations)
