"""The documentation agrees with the code."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import journeyman
from journeyman.config import Config
from journeyman.pipeline import STAGES

ROOT = Path(__file__).parents[1]


def test_the_reference_is_generated() -> None:
    made = runpy.run_path(str(ROOT / "tools" / "make_reference.py"))["reference"]()
    assert (ROOT / "docs" / "reference.md").read_text() == made, "run: python tools/make_reference.py"


def _keys_of_schema(schema: dict[str, Any], definitions: dict[str, Any], path: str) -> Iterator[str]:
    """The keys of the config according to pydantic's JSON Schema, independently of the generator."""
    if name := schema.get("$ref"):
        yield from _keys_of_schema(definitions[name.rpartition("/")[2]], definitions, path)
    elif "properties" in schema:
        for key, inner in schema["properties"].items():
            yield from _keys_of_schema(inner, definitions, f"{path}.{key}".lstrip("."))
    elif isinstance(inner := schema.get("additionalProperties"), dict) and "$ref" in inner:
        yield from _keys_of_schema(inner, definitions, f"{path}.NAME")
    elif "$ref" in (inner := schema.get("items", {})):
        yield from _keys_of_schema(inner, definitions, f"{path}[]")
    elif inner := next((one for one in schema.get("anyOf", []) if "$ref" in one), None):  # a section, or none
        yield from _keys_of_schema(inner, definitions, path)
    else:
        yield path


def test_the_reference_names_every_key_once() -> None:
    schema = Config.model_json_schema()
    wanted = set(_keys_of_schema(schema, schema["$defs"], ""))
    assert {
        "base.model",
        "evaluate.endpoints.NAME.roles",
        "curate.credit[].needs[].matches",
        "roles.NAME.checks",
    } <= wanted
    text = (ROOT / "docs" / "reference.md").read_text()
    table = text.partition("## journeyman.toml")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(listed) == len(set(listed)) and wanted <= set(listed)
    # Keys that contain sections have their own line in addition to those of the sections.
    sections = {"evaluate.endpoints", "evaluate.server", "curate.credit", "curate.credit[].needs", "record.roles"}
    sections |= {"route.roles", "monitor.prices", "ask_again.prices"}
    assert set(listed) - wanted == sections


def test_the_changelog_names_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## (\S+) - \d{4}-\d\d-\d\d$", text, re.MULTILINE)
    assert re.match(r"# Changelog\n\n(## \S+ \(unreleased\)|## \S+ - \d)", text)
    assert newest and newest[1] == journeyman.__version__


def test_architecture_names_every_stage_and_package() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert all(stage.name in text and stage.folder in text for stage in STAGES)
    packages = [p.name for p in (ROOT / "src" / "journeyman").iterdir() if (p / "__init__.py").is_file()]
    assert all(f"{name}/" in text for name in packages)


def test_every_command_that_the_readme_names_exists() -> None:
    import typer

    from journeyman.cli.app import app

    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    code = re.findall(r"```\n(.*?)```|`([^`\n]+)`", (ROOT / "README.md").read_text(), re.DOTALL)
    named = {
        command
        for parts in code
        for part in parts
        for command in re.findall(r"\bjourneyman ([a-z]+(?:-[a-z]+)*)\b", part)
    }
    assert {"demo", "run", "serve"} <= named <= commands
