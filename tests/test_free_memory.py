"""Free memory inside and outside of containers, with made folders of control groups."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from journeyman import free_memory as module
from journeyman.free_memory import free_memory

GB = 10**9


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: SimpleNamespace(available=60 * GB, total=64 * GB))


def _group(folder: Path, limit: str, used: int, cached: int = 0, high: str = "max") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.high").write_text(f"{high}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")


def _own(folder: Path, text: str) -> Path:
    path = folder / "own"
    path.write_text(text)
    return path


def test_without_a_limit_it_is_the_machines(tmp_path: Path) -> None:
    _group(tmp_path / "groups", "max", 5 * GB)
    found = free_memory(tmp_path / "groups", _own(tmp_path, "0::/\n"))
    assert (found.bytes, found.limit) == (60 * GB, None)
    nowhere = free_memory(tmp_path / "nowhere", tmp_path / "none")
    assert (nowhere.bytes, nowhere.limit) == (60 * GB, None)


def test_a_containers_limit_counts_without_its_cached_files(tmp_path: Path) -> None:
    _group(tmp_path / "groups", str(8 * GB), 3 * GB, cached=2 * GB)
    found = free_memory(tmp_path / "groups", _own(tmp_path, "0::/\n"))
    assert (found.bytes, found.limit, found.used, found.of_machine) == (7 * GB, 8 * GB, GB, 60 * GB)


def test_the_tightest_of_nested_groups_counts(tmp_path: Path) -> None:
    root = tmp_path / "groups"
    _group(root, "max", 30 * GB)
    _group(root / "outer", str(6 * GB), 5 * GB)
    _group(root / "outer" / "inner", str(4 * GB), GB)
    own = _own(tmp_path, "0::/outer/inner\n")
    assert free_memory(root, own).bytes == GB, "siblings use the outer one"
    _group(root / "outer", str(6 * GB), 2 * GB)
    assert free_memory(root, own).bytes == 3 * GB
    _group(root / "outer" / "inner", "max", GB, high=str(2 * GB))
    assert free_memory(root, own).bytes == GB, "above memory.high, the kernel stops the process"


def test_version_1(tmp_path: Path) -> None:
    folder = tmp_path / "groups" / "memory" / "docker" / "abc"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(str(4 * GB))
    (folder / "memory.usage_in_bytes").write_text(str(2 * GB))
    (folder / "memory.stat").write_text(f"total_inactive_file {GB}\n")
    (tmp_path / "groups" / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712")
    (tmp_path / "groups" / "memory" / "memory.usage_in_bytes").write_text(str(9 * GB))
    own = _own(tmp_path, "4:cpu,cpuacct:/docker/abc\n9:memory:/docker/abc\n")
    assert free_memory(tmp_path / "groups", own).bytes == 3 * GB
    hidden = _own(tmp_path, "9:memory:/of/the/host\n")
    assert free_memory(tmp_path / "groups", hidden).limit is None


def test_a_limit_that_is_used_up_leaves_nothing(tmp_path: Path) -> None:
    _group(tmp_path / "groups", str(GB), 2 * GB)
    assert free_memory(tmp_path / "groups", _own(tmp_path, "0::/../outside\n")).bytes == 0


def test_other_processes_of_the_machine_count_in_a_container_as_well(tmp_path: Path) -> None:
    _group(tmp_path / "groups", str(63 * GB), 0)
    assert free_memory(tmp_path / "groups", _own(tmp_path, "0::/\n")).bytes == 60 * GB
