"""Ray is an option: nothing needs it until a cluster is asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

MakeRun = Callable[..., Path]
WITHOUT_RAY = "import sys; sys.modules['ray'] = None; from journeyman.cli.app import main; main()"


def journeyman(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in an environment in which Ray cannot be imported."""
    command = [sys.executable, "-c", WITHOUT_RAY, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_stages_run_where_ray_is_not_installed_and_ask_for_it_only_with_the_option(make_run: MakeRun) -> None:
    folder = make_run()
    asked = journeyman("ingest", "--ray", "--dir", folder)
    assert asked.returncode == 2 and "pip install 'journeyman[ray]'" in asked.stderr
    assert not (folder / "01-interactions" / "manifest.json").exists()
    done = journeyman("curate", "--dir", folder)
    assert done.returncode == 0 and (folder / "02-dataset" / "manifest.json").exists(), done.stderr
