"""A recorder that is killed at any moment: every answer that a client received is a row, and the ledger has no gap."""

from __future__ import annotations

from pathlib import Path

import pytest

from record_killing import killed


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
def test_rows_made_in_another_process_survive_too(tmp_path: Path) -> None:
    found = killed(tmp_path, 3, maker="apart", seed=1)
    assert (found["received_but_not_in_a_row"], found["difference"], found["open"]) == ([], 0, 0)
