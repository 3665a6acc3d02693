"""What was recorded becomes the next training data: the teacher's answers, marked with what the student did."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from journeyman.cli.app import app
from journeyman.cli.record import gathered_source
from journeyman.config import Config
from journeyman.errors import DiskError
from journeyman.gateway.row_files import compress
from journeyman.routing import gathering
from journeyman.routing.gathering import gather
from journeyman.zst import ZstdFile
from test_assessing import row, write


def copied(folder: Path) -> list[dict[str, Any]]:
    with (folder / "out" / "rows.jsonl.zst").open("rb") as raw:
        return [json.loads(line) for line in io.BufferedReader(ZstdFile(raw))]


def said(seq: int, outcome: str = "complete", **request: Any) -> dict[str, Any]:
    return {"recorded": 1, "seq": seq, "outcome": outcome, "path": "/v1/feedback", "request": request,
            "conversation": request.get("conversation", "")}  # fmt: skip


def test_rows_are_marked_and_the_students_are_left_out(tmp_path: Path) -> None:
    student = {"mode": "canary", "trial": 1, "arm": "student", "share": 0.5}
    compress(write(tmp_path / "recorded", [row(1, "a", {}), row(2, "b", student)]))
    write(tmp_path / "recorded", [
        row(3, "c", {**student, "fallback": "silent"}), row(4, "d", {"mode": "shadow"}), row(5, "e", {}),
        row(6, "f", {}), said(7, exchange=5, success=False), said(8, conversation="f", score=0.2),
        said(9, "refused", exchange=1, score=0),
    ], 2)  # fmt: skip
    (tmp_path / "routing").mkdir()
    line = {"seq": 1, "of": 4, "place": "shadow", "failed": True, "why": "check_exact"}
    (tmp_path / "routing" / "exchanges.jsonl").write_text(json.dumps(line) + "\n")
    found = gather(tmp_path / "recorded", tmp_path / "routing", tmp_path / "out")
    assert (found.rows, found.student, dict(found.marked), found.disliked) == (8, 1, {"fallback": 1, "shadow": 1}, 2)
    rows = {one["seq"]: one for one in copied(tmp_path)}
    assert 2 not in rows and "student" not in rows[1] and "feedback" not in rows[1]
    assert rows[3]["student"] == {"failed_in": "fallback", "why": "silent"}
    assert rows[4]["student"] == {"failed_in": "shadow", "why": "check_exact"}
    assert (rows[5]["feedback"], rows[6]["feedback"]) == (0.0, 0.2)


def test_a_damaged_file_is_named_and_the_rest_is_copied(tmp_path: Path) -> None:
    compress(write(tmp_path / "recorded", [row(n, "", {}) for n in range(1, 500)]))
    (path,) = (tmp_path / "recorded").iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    write(tmp_path / "recorded", [row(500, "", {})], 2)
    found = gather(tmp_path / "recorded", tmp_path / "routing", tmp_path / "out")
    assert copied(tmp_path)[-1]["seq"] == 500
    assert len(found.unreadable) == 1 and path.name in found.unreadable[0]


def test_an_interrupted_copy_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "recorded", [row(1, "", {})])
    gather(tmp_path / "recorded", tmp_path / "routing", tmp_path / "out")
    write(tmp_path / "recorded", [row(2, "", {})])

    def full(*given: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gathering, "_copied", full)
    with pytest.raises(DiskError):
        gather(tmp_path / "recorded", tmp_path / "routing", tmp_path / "out")
    assert [one["seq"] for one in copied(tmp_path)] == [1]


def test_the_setting_names_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "recorded", [row(1, "", {})])
    assert gathered_source(tmp_path) == 'data.sources=["gathered/"]'
    (tmp_path / "interactions.jsonl").write_text("{}\n")
    assert gathered_source(tmp_path) == 'data.sources=["interactions.jsonl", "gathered/"]'
    assert "left out" in capsys.readouterr().err


def test_without_records_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "journeyman.toml").write_text("")
    made = CliRunner().invoke(app, ["run", "--from-recorded", "--dir", str(tmp_path)])
    assert made.exit_code == 1 and "journeyman record" in str(made.exception)
    assert Config().record.folder == "recorded"
