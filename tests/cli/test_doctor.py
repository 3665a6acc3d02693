"""`journeyman doctor` says whether a run could work on a cluster."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

from journeyman.cli import doctor


def test_the_version_of_ray_is_found_without_importing_it() -> None:
    code = "import sys; from journeyman.cli import doctor; print(doctor._cluster(), 'ray' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.startswith(f"Ray {importlib.metadata.version('ray')}, ") and printed.endswith(" False\n")


def test_a_machine_without_ray_lacks_nothing_that_a_run_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    assert doctor._line("cluster", doctor._cluster)
    line = capsys.readouterr().out
    assert line.startswith("ok       cluster") and "pip install 'journeyman[ray]'" in line
