"""`journeyman verify`: what has changed since it was made, on stdout, one line each."""

from __future__ import annotations

from pathlib import Path

from journeyman.cli.say import say
from journeyman.verifying import verify


def print_verified(folder: Path) -> bool:
    """Prints what was found; True where every file that is covered is as it was made."""
    found = verify(folder)
    for finding in found.findings:
        say(finding)
    for note in found.notes:
        say(f"note: {note}")
    if found.not_covered:
        say(f"not covered: {', '.join(found.not_covered)}")
    changed = f"{len(found.findings)} findings" if found.findings else "all are as they were made"
    say(f"{found.files} files compared: {changed}")
    return not found.findings
