"""The worked examples of CONTRIBUTING.md, carried out as printed in a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COPIED = ("src", "tests", "tools", "docs", "pyproject.toml", "README.md", "ARCHITECTURE.md", "CHANGELOG.md")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def blocks(section: str) -> Iterator[str]:
    """The code blocks of a section that are part of a numbered step, without their indentation."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    for block in re.findall(r"^    ```\w*\n(.*?)^    ```$", text, re.DOTALL | re.MULTILINE):
        yield textwrap.dedent(block)


def insert(path: Path, before: str, text: str) -> None:
    """Inserts text in front of the only place where `before` is found."""
    source = path.read_text()
    assert source.count(before) == 1, f"{path.name}: {before!r}"
    path.write_text(source.replace(before, text + before))


def append(path: Path, text: str) -> None:
    path.write_text(f"{path.read_text()}\n\n{text}")


def run(copy: Path, *command: str) -> str:
    """What a command prints that runs in the copy, with the copy's code."""
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def passes_all(copy: Path, *arguments: str) -> str:
    return run(copy, sys.executable, "-m", "pytest", "-q", *arguments)


def passes(copy: Path, count: int, *arguments: str) -> None:
    assert re.search(rf"^{count} passed", passes_all(copy, *arguments), re.MULTILINE)


@pytest.mark.slow
def test_a_check_is_added_as_described(copy: Path) -> None:
    reason, reader, check, test, commands = blocks("Adding a check")
    scoring = copy / "src/journeyman/scoring"
    insert(copy / "src/journeyman/reasons/scoring.py", "def of_old_text", f"{reason}\n\n")
    insert(scoring / "row_data.py", "KEYS: Mapping", f"{reader}\n\n")
    insert(scoring / "row_data.py", '    "regex": {"pattern"', '    "max_words": {"max_words": max_words_of},\n')
    (scoring / "max_words.py").write_text(check)
    insert(
        scoring / "checks.py",
        "from journeyman.scoring.patch_applies",
        "from journeyman.scoring.max_words import max_words\n",
    )
    insert(scoring / "checks.py", "python_tests, catches_mutants, patch_applies,", "max_words, ")
    insert(copy / "pyproject.toml", "patch_applies | python_parses", "max_words | ")
    append(copy / "tests/scoring/test_scoring.py", test)

    assert "make_reference.py" in commands and "lint-imports" in commands
    run(copy, sys.executable, "tools/make_reference.py")
    assert "\n- `max_words`: " in (copy / "docs/reference.md").read_text()
    passes(copy, 2, "tests/scoring/test_scoring.py", "tests/test_reasons.py", "-k", "test_max_words or too_many_words")
    passes_all(copy, "tests/test_docs.py", "-k", "reference")
    run(copy, str(Path(sys.executable).with_name("lint-imports")))
    run(copy, sys.executable, "-c", FAULT_IS_NAMED)


FAULT_IS_NAMED = """
from journeyman.scoring.row_data import fault_of
name, reason = fault_of(["max_words"], {"max_words": 0})
assert name == "max_words" and reason.code == "check_data_of_other_type"
"""


@pytest.mark.slow
def test_a_curation_rule_is_added_as_described(copy: Path) -> None:
    reason, entry, rule, test, commands = blocks("Adding a curation rule")
    package = copy / "src/journeyman"
    append(package / "reasons/curation.py", reason)
    insert(package / "ruleset.py", "    # Rules that compare rows", textwrap.indent(entry, "    "))
    insert(package / "curation/rules.py", "RULES: Sequence[Rule]", f"{rule}\n\n")
    append(copy / "tests/curation/test_dialogues.py", test)

    assert "make_reference.py" in commands
    run(copy, sys.executable, "tools/make_reference.py")
    assert "| `curate.rules.unfilled` | `'note'` |" in (copy / "docs/reference.md").read_text()
    passes(copy, 2, "tests/curation/test_dialogues.py", "tests/test_reasons.py", "-k", "unfilled")
    passes_all(copy, "tests/curation/test_ruleset.py", "tests/test_docs.py", "-k", "rule or reference")


@pytest.mark.slow
def test_a_log_format_is_added_as_described(copy: Path) -> None:
    reader, fixture, expected, test, commands = blocks("Adding a log format")
    sources, tests = copy / "src/journeyman/sources", copy / "tests"
    (sources / "desk.py").write_text(reader)
    insert(sources / "reader.py", "    gateways,\n    inspect_log,", "    desk,\n")
    insert(sources / "reader.py", '        "anthropic": anthropic,', '        "desk": desk,\n')
    (tests / "fixtures/desk.jsonl").write_text(fixture)
    insert(tests / "sources/test_sources.py", '    "xlam": [', textwrap.indent(expected, "    "))
    append(tests / "sources/test_sources_labels.py", test)

    assert "make_reference.py" in commands
    run(copy, sys.executable, "tools/make_reference.py")
    assert "`desk`: " in (copy / "docs/reference.md").read_text()
    passes_all(copy, "tests/sources", "-k", "desk or fixture")
    passes_all(copy, "tests/test_docs.py", "-k", "reference")
    shown = run(
        copy, sys.executable, "-m", "journeyman", "ingest", "--explain", "tests/fixtures/desk.jsonl", "--line", "3"
    )
    assert "read as desk" in shown
