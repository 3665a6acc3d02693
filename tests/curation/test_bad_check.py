"""Rows whose check data decide nothing: curate says so, and none of them is tested."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from conftest import log_row
from journeyman.artifacts import read_rows
from journeyman.config import Config
from journeyman.manifests import DatasetManifest
from journeyman.models.gguf_file import GgufFile
from journeyman.protocols import SilentReporter
from journeyman.records import Example, Finding, Interaction, Message
from journeyman.scoring.apart import RowFaults, data_fault
from journeyman.scoring.row_data import KEYS
from journeyman.sources.files import sources_of
from journeyman.stages.curate import curate
from journeyman.stages.ingest import ingest

GOOD = {"schema": {"type": "object"}, "pattern": "^ok"}
BAD: list[dict[str, Any]] = [
    {"schema": {"pattern": "("}}, {"schema": {"type": 5}}, {"schema": {"$ref": "http://127.0.0.1:9/x"}},
    {"schema": {"$ref": "#"}},
    {"schema": 5}, {"pattern": "("}, {"pattern": ["a"]},
]  # fmt: skip


def _curated(folder: Path, base: GgufFile, action: str | None = None) -> tuple[DatasetManifest, Path]:
    rows = [log_row(n) for n in range(60)]
    for number, row in enumerate(rows):
        row["check"] = BAD[number % 20] if number % 20 < len(BAD) else GOOD
    out = folder / (action or "default")
    out.mkdir()
    (out / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    curating: dict[str, Any] = {"test_share": 0.6, "val_share": 0.0, "near_duplicate": 1.0}
    if action:
        curating["rules"] = {"bad_check": action}
    config = Config.model_validate({
        "curate": curating, "roles": {"coder": {"checks": ["answered"], "weights": {"json_schema": 1, "regex": 1}}}
    })  # fmt: skip
    ingest(sources_of([out / "log.jsonl"]), config.data, config.redact, out, SilentReporter())
    return curate(out / "interactions.jsonl.zst", config, base, out, SilentReporter()), out


def _bad(row: Example) -> bool:
    return row.check in BAD


@pytest.mark.parametrize("action", [None, "drop", "keep"])
def test_curate_names_them(action: str | None, tmp_path: Path, embedded: GgufFile) -> None:
    made, out = _curated(tmp_path, embedded, action)
    tested = list(read_rows(out / "sealed" / "test.jsonl", Example))
    trained = list(read_rows(out / "train.jsonl", Example))
    found = [one for name in ("dropped", "noted") for one in read_rows(out / f"{name}.jsonl", Finding)]
    found = [one for one in found if one.rule == "bad_check"]
    assert tested and made.rules["bad_check"].what
    if action == "keep":
        assert not found and any(map(_bad, tested))
        return
    assert len(found) == 3 * len(BAD) and not any(map(_bad, tested))
    assert {one.action for one in found} == {"dropped" if action == "drop" else "noted"}
    faults = [str(one.reason.details["fault"]) for one in found if one.reason.code == "bad_check"]
    assert len(faults) == len(found)
    assert {fault.split(" ")[0] for fault in faults} == {"json_schema:", "regex:"}
    counted = made.rules["bad_check"].dropped if action == "drop" else made.rules["bad_check"].noted
    assert counted == {"coder": 3 * len(BAD)}
    assert any(map(_bad, trained)) == (action is None), "by default they are trained on"


def _row(role: str, check: dict[str, Any]) -> Interaction:
    message = Message(role="user", content="?")
    return Interaction(id="a", source="x:1", role=role, messages=[message], output="ok", succeeded=True, check=check)


def test_only_the_checks_of_the_role_look_at_its_data() -> None:
    """A check of one's own may mean something else by the same key."""
    faults = pickle.loads(pickle.dumps(RowFaults({"coder": ["regex"], "writer": ["mine.py:f", "answered"]})))
    assert faults(_row("coder", {"pattern": "("}))
    assert faults(_row("writer", {"pattern": "("})) is None and faults(_row("other", {"pattern": "("})) is None
    assert faults(_row("coder", {})) is None and faults(_row("coder", {"schema": 5})) is None


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("exact", {"expected": "x"}, {"expected": 5}),
        ("normalized", {"expected": "x"}, {"expected": ["x"]}),
        ("contains", {"contains": ["a"]}, {"contains": [1]}),
        ("regex", {"pattern": "a+"}, {"pattern": "a("}),
        ("similarity", {"expected": "x", "similarity": 0.5}, {"expected": "x", "similarity": True}),
        ("json_schema", {"schema": {"$defs": {"a": {}}, "$ref": "#/$defs/a"}}, {"schema": {"minLength": -1}}),
        ("tool_call", {"calls": [{"name": "f", "arguments": {}}]}, {"calls": [{"arguments": {}}]}),
        ("python_tests", {"tests": "assert f() == 1"}, {"tests": "assert f( == 1"}),
        ("catches_mutants", {"right": "x = 1", "wrong": ["x = 2"]}, {"right": "x = 1", "wrong": [2]}),
        ("patch_applies", {"files": {"a": "x\n"}}, {"files": {"../a": "x\n"}}),
    ],
)  # fmt: skip
def test_the_data_of_every_check(name: str, good: dict[str, Any], bad: dict[str, Any]) -> None:
    assert data_fault([name], good) is None and data_fault([name], {}) is None
    fault = data_fault(["answered", name], bad)
    assert fault is not None and fault.startswith(f"{name}: ")
    assert set(good) <= KEYS[name].keys()
