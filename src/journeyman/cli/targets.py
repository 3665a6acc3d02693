"""What `journeyman export --target` prints about each target."""

from __future__ import annotations

from pathlib import Path

from journeyman.bundling.trials import trial_line
from journeyman.cli.say import say
from journeyman.manifests import BundleManifest
from journeyman.promotion import why_not_deployable


def print_target(place: Path, bundle: BundleManifest, allowed: str | None = None) -> None:
    """One line about the files, and one about each program that was asked the golden prompt.

    Args:
        allowed: the reason for --allow-unevaluated, if it was given.
    """
    target = bundle.target
    assert target is not None
    state = "evaluated, deployable" if target.deployable else f"NOT DEPLOYABLE: {why_not_deployable(bundle)}"
    say(f"{place}: {state}")
    if target.allowed:
        say(f"  may be served nevertheless: {target.allowed}")
    elif allowed:
        say("  --allow-unevaluated: not needed, and not recorded")
    for trial in target.trials:
        say(f"  golden prompt: {trial_line(trial)}")
