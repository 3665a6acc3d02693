"""A recorder that is killed at any moment: every answer that a client received is a row, and the ledger has no gap."""

from __future__ import annotations

from pathlib import Path

import pytest

from journeyman.gateway.checking import count
from record_killing import killed
from scripted_upstream import rows_in


@pytest.mark.slow
def test_what_a_client_received_is_in_a_row_after_fifteen_kills(tmp_path: Path) -> None:
    found = killed(tmp_path, 15)
    assert found["received_but_not_in_a_row"] == []
    assert found["difference"] == 0
    assert found["open"] == 0
    assert found["requests"] == found["rows"]
    assert found["answers_received"] > 15
    assert found["outcomes"].get("cut"), "no kill hit an answer"


@pytest.mark.slow
def test_a_student_beside_the_teacher_changes_nothing_of_that(tmp_path: Path) -> None:
    found = killed(tmp_path, 10, seed=2, student=True)
    assert (found["received_but_not_in_a_row"], found["difference"], found["open"]) == ([], 0, 0)
    routed = [row["route"] for row in rows_in(tmp_path) if "route" in row]
    assert {"student"} == {route["arm"] for route in routed} and any("fallback" in route for route in routed)
    beside = count(tmp_path / "routing" / "undelivered", "")
    assert beside.difference == 0 and beside.rows["failed"] > 0


@pytest.mark.slow
def test_rows_made_in_another_process_survive_too(tmp_path: Path) -> None:
    found = killed(tmp_path, 3, maker="apart", seed=1)
    assert (found["received_but_not_in_a_row"], found["difference"], found["open"]) == ([], 0, 0)
