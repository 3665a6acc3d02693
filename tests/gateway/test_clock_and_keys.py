"""A clock that jumps loses no row and no order; rules by key find the role."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from journeyman.config import RoleRule
from journeyman.gateway import row_files
from journeyman.gateway.checking import count
from journeyman.gateway.headers import key_hash
from journeyman.gateway.roles import Facts, role_of
from test_ledger import exchange, ledger, rows


def test_a_clock_that_jumps_back_and_forth_loses_no_row_and_keeps_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = iter([0, 0, -400, -400, 3000, 0, -1])

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=next(jumps, 0))

    monkeypatch.setattr(row_files, "datetime", Jumping)
    folder = tmp_path / "recorded"
    for number in range(0, 8, 2):
        one = ledger(folder)
        exchange(one, f"answer {number}")
        exchange(one, f"answer {number + 1}")
        one.close()
    said = [row["response"]["choices"][0]["message"]["content"] for row in rows(folder)]  # type: ignore[index]
    assert said == [f"answer {number}" for number in range(8)]
    assert count(folder, "").difference == 0
    assert len({path.name[12:22] for path in row_files.row_files(folder)}) >= 4  # several days, in no order


def test_a_rule_by_key_knows_the_ports_key_by_name_and_the_clients_by_its_hash() -> None:
    key = "sk-some-client-key"
    digest = hashlib.sha256(key.encode()).hexdigest()
    rules = [
        RoleRule(role="team", key="team-a"),
        RoleRule(role="client", key=digest[:8]),
        RoleRule(role="short", key=digest[:4]),
    ]
    found = key_hash({"authorization": f"Bearer {key}"})
    assert digest.startswith(found)
    assert role_of(Facts("/", key="team-a"), rules) == "team"
    assert role_of(Facts("/", key_hash=found), rules) == "client"
    assert role_of(Facts("/", key_hash=found, request=json.loads('{"model": "m"}')), rules[2:]) == "m"
    assert role_of(Facts("/", key_hash="0" * 16), rules) == "agent"
