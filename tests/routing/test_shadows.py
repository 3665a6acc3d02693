"""Shadow is bounded in requests and in bytes, and what is left out is counted, shown, and told once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from faults import wait_until
from journeyman.routing import answering, shadows
from scripted_upstream import rows_in
from two_upstreams import Both, both, chat, undelivered

SHADOW = '[route.roles.coder]\nmode = "shadow"\n'


def shown(one: Both) -> tuple[dict[str, int], str]:
    _, _, health = one.post("/journeyman/health", b"", method="GET")
    _, _, metrics = one.post("/journeyman/metrics", b"", method="GET")
    found: dict[str, int] = json.loads(health)["shadow"]
    return found, metrics.decode()


@pytest.mark.parametrize("settings", ["", "shadow_waiting = 1\n"])
def test_what_is_left_out_is_counted_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str
) -> None:
    if not settings:  # then the bytes are the limit
        monkeypatch.setattr(shadows, "HELD_BYTES", 3000)
    told: list[str] = []
    text = "x" * 500  # twice in bytes, and the answer
    with both(tmp_path, lambda seen: chat("T"), lambda seen: [5.0], settings + SHADOW, told=told.append) as one:
        assert shown(one)[0] == {"waiting": 0, "left_out": 0}
        for _ in range(5):
            assert one.ask(text)[0] == 200
        found, metrics = shown(one)
        assert found == {"waiting": 2, "left_out": 3}
        assert "journeyman_shadow_waiting 2\n" in metrics and "journeyman_shadow_left_out_total 3\n" in metrics
    assert sum("not compared in shadow" in line for line in told) == 1
    assert len(rows_in(tmp_path)) == 5


def test_bytes_are_free_again_when_a_request_has_been_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "HELD_BYTES", 1500)
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat("S"), SHADOW) as one:
        for done in range(1, 4):
            one.ask("x" * 300)
            wait_until(lambda done=done: len(undelivered(tmp_path)) == done and not shown(one)[0]["waiting"])
        assert shown(one)[0]["left_out"] == 0


def test_an_answer_that_is_too_large_to_compare_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "MOST_BYTES", 100)
    with both(tmp_path, lambda seen: chat("T" * 200), lambda seen: chat("S"), SHADOW) as one:
        assert one.ask()[0] == 200
        assert shown(one)[0] == {"waiting": 0, "left_out": 1}
        assert not one.asked_student
