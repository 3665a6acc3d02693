"""Teacher terms: rows of denied teachers are dropped with a reason, unknown ones are counted, named or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import log_row
from journeyman.artifacts import read_json
from journeyman.config import TeacherTermsConfig, load_config, parse_config
from journeyman.curation.terms import terms_of
from journeyman.errors import UsageError
from journeyman.manifests import DatasetManifest
from journeyman.runs import Run, typed_result
from journeyman.stage_settings import of_curate
from test_pipeline import call

TERMS = TeacherTermsConfig(allow=["acme", "own/*", "open-*"], deny=["acme/large", "rival", "*secret*"])


@pytest.mark.parametrize(
    ("teacher", "terms"),
    [
        ("acme/small", "allow"),
        ("ACME/Small", "allow"),
        ("acme/large", "deny"),
        ("acme/large-2", "allow"),
        ("gateway/acme/small", "allow"),
        ("gateway/acme/large", "deny"),
        ("gateway/rival/x", "deny"),
        ("rivals/x", "unknown"),
        ("own/my-secret-model", "deny"),
        ("open-7b", "allow"),
        ("unknown", "unknown"),
        ("own", "unknown"),
    ],
)
def test_a_pattern_is_compared_with_each_part_of_the_name_and_a_denial_prevails(teacher: str, terms: str) -> None:
    assert terms_of(teacher, TERMS) == terms


def test_white_space_around_a_pattern_or_name_does_not_count() -> None:
    terms = TeacherTermsConfig(allow=["own "], deny=[" acme ", "rival\t"])
    for teacher, said in (("acme/large", "deny"), ("rival", "deny"), ("gateway/ acme/x", "deny"), ("own/x", "allow")):
        assert terms_of(teacher, terms) == said


def test_an_empty_pattern_is_refused() -> None:
    with pytest.raises(UsageError, match=r"curate\.teacher_terms\.deny"):
        parse_config({"curate": {"teacher_terms": {"deny": [" "]}}}, "journeyman.toml")


def _mixed() -> list[dict[str, Any]]:
    rows = []
    for number in range(60):
        row = log_row(number)
        row["llm"]["provider"] = ("acme", "rival", "nobody")[number % 3]
        rows.append(row)
    return rows


def _curated(make_run: Callable[..., Path], terms: str, expected: int = 0) -> Path:
    run = make_run(_mixed(), f"[curate.teacher_terms]\n{terms}")
    assert call("curate", "--dir", run) == expected
    return run


def test_denied_rows_are_dropped_with_a_reason_and_unknown_ones_are_named(
    make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = _curated(make_run, "allow = ['acme']\ndeny = ['riv*']\n")
    made = typed_result(run, "curate", DatasetManifest)
    assert made.dropped == {"teacher_terms": 20} and made.rules["teacher_terms"].dropped == {"coder": 20}
    kept = {name: (one.terms, one.rows) for name, one in made.teacher_terms.items()}
    assert kept == {"acme": ("allow", 20), "rival": ("deny", 0), "nobody": ("unknown", 20)}
    (note,) = [one for one in made.notes if one.code == "teacher_terms_not_known"]
    assert note.details == {"teachers": "nobody (20 rows)"}
    assert not [one for one in made.notes if one.code == "denial_without_teacher"]
    dropped = (run / "02-dataset" / "dropped.jsonl").read_text().splitlines()
    assert len(dropped) == 20 and all('"denied_teacher"' in line and '"rival"' in line for line in dropped)
    assert "curate.teacher_terms" in capsys.readouterr().out


def test_unknown_teachers_may_be_dropped_or_refused(
    make_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _curated(make_run, "allow = ['acme']\nunknown = 'refuse'\n", 1)
    said = capsys.readouterr().err
    assert "rival (20 rows), nobody (20 rows)" in said and "curate.teacher_terms.allow or deny" in said
    toml = run / "journeyman.toml"
    toml.write_text(toml.read_text().replace("'refuse'", "'drop'"))
    assert call("curate", "--dir", run) == 0
    made = typed_result(run, "curate", DatasetManifest)
    assert made.dropped == {"teacher_terms": 40} and made.kept == 20
    assert '"unknown_teacher_terms"' in (run / "02-dataset" / "dropped.jsonl").read_text()
    assert not [one for one in made.notes if one.code == "teacher_terms_not_known"]


def test_without_patterns_nothing_is_said_and_older_datasets_stay_fresh(make_run: Callable[..., Path]) -> None:
    run = make_run()
    assert call("curate", "--dir", run) == 0
    data = read_json(run / "02-dataset" / "manifest.json")
    assert {one["terms"] for one in data["result"]["teacher_terms"].values()} == {"unknown"}
    assert "teacher_terms_not_known" not in str(data["result"]["notes"])
    assert not [key for key in data["stamp"]["inputs"] if "teacher_terms" in key]
    changed = Run(run, load_config(run / "journeyman.toml", ["curate.teacher_terms.deny=['rival']"]))
    assert of_curate(changed)["curate.teacher_terms.deny"] == ["rival"]


def test_a_denial_that_names_no_teacher_of_the_logs_is_noted(make_run: Callable[..., Path]) -> None:
    run = _curated(make_run, "deny = ['rivall', 'rival', 'GATE*/x']\n")
    notes = typed_result(run, "curate", DatasetManifest).notes
    (note,) = [one for one in notes if one.code == "denial_without_teacher"]
    assert note.details == {"patterns": "'rivall', 'GATE*/x'"}
