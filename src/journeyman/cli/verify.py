"""`journeyman verify`: prints what has changed since it was made, one line per finding."""

from __future__ import annotations

from pathlib import Path

from journeyman.cli.say import say
from journeyman.verifying import verify


def print_verified(folder: Path) -> bool:
    """Prints what was found; True if every file that is covered is unchanged."""
    found = verify(folder)
    for finding in found.findings:
        say(finding)
    for note in found.notes:
        say(f"note: {note}")
    if found.not_covered:
        say(f"not covered: {', '.join(found.not_covered)}")
    count = f"{len(found.findings)} finding{'' if len(found.findings) == 1 else 's'}"
    say(f"{found.files} files compared: {count if found.findings else 'unchanged'}")
    return not found.findings
