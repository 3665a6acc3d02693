"""The lint report: problems in the log and what was done about them, as one page that needs no network."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from journeyman.artifacts import read_rows, write_atomic
from journeyman.manifests import DatasetManifest, IngestManifest
from journeyman.records import Finding
from journeyman.reporting.html import environment

_EXAMPLES = 5


def write_lint(data: DatasetManifest, logs: IngestManifest, folder: Path) -> None:
    """Writes lint.html next to dropped.jsonl and noted.jsonl. Logged text is untrusted, so all of it is escaped."""
    found: dict[str, list[Finding]] = defaultdict(list)
    for name in ("dropped.jsonl", "noted.jsonl"):
        for row in read_rows(folder / name, Finding):
            if len(found[row.rule]) < _EXAMPLES:
                found[row.rule].append(row)
    examples = {name: found[name] for name in data.rules if found[name]}
    page = environment().get_template("lint.html.j2").render(data=data, logs=logs, examples=examples)
    write_atomic(folder / "lint.html", page.encode())
