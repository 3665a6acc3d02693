"""A run whose curate stage was made before reasons had codes: it is shown, and the next stages go on from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import log_row
from journeyman.artifacts import MANIFEST, hash_of_file, read_rows
from journeyman.lineage import manifest_bytes, own_hash
from journeyman.manifests import DatasetManifest, PlanManifest
from journeyman.pipeline import typed_result
from journeyman.reasons import ReasonRecord
from journeyman.records import Finding
from test_pipeline import MakeRun, call


def _older(value: Any) -> Any:
    """Every reason as its sentence."""
    if isinstance(value, dict) and value.keys() == {"code", "details"}:
        return ReasonRecord.model_validate(value).sentence()
    if isinstance(value, dict):
        return {key: _older(inner) for key, inner in value.items()}
    return [_older(inner) for inner in value] if isinstance(value, list) else value


def _make_older(stage: Path) -> None:
    for name in ("dropped.jsonl", "noted.jsonl"):
        rows = [json.loads(line) for line in (stage / name).read_text().splitlines()]
        for row in rows:
            row["detail"] = ReasonRecord.model_validate(row.pop("reason")).sentence()
        (stage / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = _older(json.loads((stage / MANIFEST).read_text()))
    data["result"]["routing"]["note"] = data["result"]["routing"]["note"] or ""
    for name in ("dropped.jsonl", "noted.jsonl"):
        data["stamp"]["files"][name] = hash_of_file(stage / name)
    data["stamp"]["sha256"] = own_hash(data)
    (stage / MANIFEST).write_bytes(manifest_bytes(data))


def test_it_is_shown_and_planned_from(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [log_row(i) for i in range(60)] + [log_row(60, output="")]
    folder = make_run(rows=rows)
    assert call("curate", "--dir", folder) == 0
    made = typed_result(folder, "curate", DatasetManifest)
    stage = folder / "02-dataset"
    findings = [one.reason.sentence() for one in read_rows(stage / "dropped.jsonl", Finding)]
    _make_older(stage)
    capsys.readouterr()

    read = typed_result(folder, "curate", DatasetManifest)
    assert read.leak_check.code == "text" and made.notes and {note.code for note in read.notes} == {"text"}
    assert [one.reason.sentence() for one in read_rows(stage / "dropped.jsonl", Finding)] == findings == ["no answer"]
    assert call("show", "dataset", "--dir", folder) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert made.leak_check.sentence() in shown and all(note.sentence() in shown for note in made.notes)
    assert call("plan", "--dir", folder) == 0
    plan = typed_result(folder, "plan", PlanManifest)
    assert [one.sentence() for one in plan.warnings[: len(made.notes)]] == [note.sentence() for note in made.notes]

    capsys.readouterr()
    assert call("show", "plan", "--dir", folder) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert plan.warnings and all(" ".join(one.sentence().split()) in shown for one in plan.warnings)
    assert call("show", "plan", "--json", "--dir", folder) == 0
    codes = [one["code"] for one in json.loads(capsys.readouterr().out)["result"]["warnings"]]
    assert codes == [one.code for one in plan.warnings] and "too_few_test_rows" in codes
