"""The documents say what the code does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import journeyman
from journeyman.pipeline import STAGES

ROOT = Path(__file__).parents[1]


def test_the_reference_is_generated() -> None:
    made = runpy.run_path(str(ROOT / "tools" / "make_reference.py"))["reference"]()
    assert (ROOT / "docs" / "reference.md").read_text() == made, "run: python tools/make_reference.py"


def test_the_changelog_names_the_version() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest and newest[1] == journeyman.__version__


def test_architecture_names_every_stage_and_package() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert all(stage.name in text and stage.folder in text for stage in STAGES)
    packages = [p.name for p in (ROOT / "src" / "journeyman").iterdir() if (p / "__init__.py").is_file()]
    assert all(f"{name}/" in text for name in packages)


def test_every_verb_that_the_readme_names_exists() -> None:
    import typer

    from journeyman.cli.app import app

    verbs = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    code = re.findall(r"```\n(.*?)```|`([^`\n]+)`", (ROOT / "README.md").read_text(), re.DOTALL)
    named = {verb for parts in code for part in parts for verb in re.findall(r"\bjourneyman ([a-z]+)\b", part)}
    assert {"demo", "run", "serve"} <= named <= verbs
