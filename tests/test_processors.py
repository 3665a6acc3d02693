"""Cores in containers, whose limits `nproc` does not know."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from journeyman.processors import cores_used_by_others, default_threads, usable_cores


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 64),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "6400000000 100000\n"}, 64),
        ({"cpu.max": "what"}, 64),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "1\n", "cpu/cpu.cfs_period_us": "0\n"}, 64),
    ],
)
def test_a_containers_limit_counts(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == expected


def test_threads_are_no_more_than_cores() -> None:
    assert 1 <= default_threads() <= usable_cores() <= (os.cpu_count() or 1)


def test_what_others_use_is_not_negative() -> None:
    assert 0.0 <= cores_used_by_others(0.05) < 10_000


def test_the_tightest_of_nested_quotas_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service within a slice, as systemd and Kubernetes make them."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    inner = tmp_path / "groups" / "slice" / "service"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("800000 100000\n")
    (inner.parent / "cpu.max").write_text("300000 100000\n")
    own = tmp_path / "own"
    own.write_text("0::/slice/service\n")
    assert usable_cores(tmp_path / "groups", own) == 3
    (inner / "cpu.max").write_text("150000 100000\n")
    assert usable_cores(tmp_path / "groups", own) == 2
