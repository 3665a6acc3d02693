"""What `journeyman export --target` prints about each target."""

from __future__ import annotations

from pathlib import Path

from journeyman.bundling.trials import trial_line
from journeyman.cli.say import say
from journeyman.manifests import BundleManifest
from journeyman.releases import why_not_deployable


def print_target(place: Path, bundle: BundleManifest) -> None:
    """One line about the files, and one about each program that was asked the golden prompt."""
    target = bundle.target
    assert target is not None
    state = "evaluated, deployable" if target.deployable else f"NOT DEPLOYABLE: {why_not_deployable(bundle)}"
    say(f"{place}: {state}")
    if target.allowed:
        say(f"  may be served nevertheless: {target.allowed}")
    for trial in target.trials:
        say(f"  golden prompt: {trial_line(trial)}")
