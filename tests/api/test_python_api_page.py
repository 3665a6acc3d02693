"""docs/python-api.md: its code blocks run, in order, as the cells of one notebook."""

from __future__ import annotations

import importlib.util
import json
import linecache
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import journeyman
from conftest import log_row

PAGE = Path(__file__).parents[2] / "docs" / "python-api.md"
NEEDS = {"to_pandas": "pandas", "to_polars": "polars"}


def cells() -> list[tuple[int, str]]:
    """(line, code) of each block."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text[: one.start(1)].count("\n") + 1, one[1]) for one in found]


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(
    tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("logs").mkdir()
    rows = [log_row(number) for number in range(40)] + [log_row(50, output="ok", errors=["x"], status="failure")]
    Path("logs/a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "no row\n")
    shutil.copy(tiny_gguf, "base.gguf")
    names: dict[str, Any] = {"__name__": "__main__"}
    assert len(cells()) > 15
    for line, code in cells():
        if any(word in code and importlib.util.find_spec(needed) is None for word, needed in NEEDS.items()):
            continue
        file = f"<python-api.md, line {line}>"
        linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
        exec(compile(code, file, "exec"), names)
    shown = capsys.readouterr().out
    assert names["bundle"].manifest.override == "to try it out" and names["run"].status["export"] == "fresh"
    assert names["strict"].config.roles["coder"].checks == ["answered", "checks/polite.py:polite"]
    assert names["dropped"] and names["decision"].verdict in shown and "train made in" in shown
    assert "Did you mean train.epochs?" in shown and "--until train" in shown


def test_the_page_names_every_public_name() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text.partition("## Names")[2]
    assert [name for name in journeyman.__all__ if name != "__version__" and f"`{name}`" not in table] == []
