"""The error classes: each has a code and an exit code with one meaning, and disk errors are distinguished."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from journeyman import errors, parallel
from journeyman.artifacts import disk_error, write_json
from journeyman.errors import DiskError, DiskFull, InputError, JourneymanError, Unwritable, WorkerDied


def _kinds(kind: type[JourneymanError] = JourneymanError) -> Iterator[type[JourneymanError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from _kinds(below)


def test_every_kind_has_a_code_and_stands_in_the_tree_that_is_documented() -> None:
    kinds = list(_kinds())
    assert len({kind.code for kind in kinds}) == len(kinds)
    exits = {"usage": 2, "not_deployable": 3, "no_go": 3, "interrupted": 130}
    assert {kind.code: kind.exit_code for kind in kinds} == {kind.code: exits.get(kind.code, 1) for kind in kinds}
    told = errors.__doc__ or ""
    for kind in kinds[1:]:
        assert f" {kind.__name__} " in told and f" {kind.code} " in told, kind


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EACCES, Unwritable),
        (errno.EROFS, Unwritable),
        (errno.EIO, DiskError),
    ],
)
def test_what_the_disk_refuses_has_a_kind(tmp_path: Path, number: int, kind: type[DiskError]) -> None:
    error = disk_error(OSError(number, os.strerror(number)), tmp_path / "x")
    assert type(error) is kind and not isinstance(error, InputError)
    assert str(tmp_path) in error.what and error.remedy


def test_a_folder_where_a_file_stands_is_unwritable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Unwritable, match="Make the folder writable"):
        write_json(tmp_path / "file" / "x.json", 1)


def _kill_oneself(state: Any, batch: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return batch


def test_a_worker_that_is_killed_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _: {0, 1})
    with pytest.raises(WorkerDied, match="a worker process died") as died:
        list(parallel.LOCAL.map_batches(_kill_oneself, dict, [1, 2]))
    assert died.value.code == "worker_died" and died.value.exit_code == 1


def test_a_script_gets_the_error_as_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "journeyman", "show", "ingest", "--json", "--dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    told = json.loads(done.stdout)["error"]
    assert told["code"] == "input" and told["exit_code"] == done.returncode == 1
    assert told["what"] in done.stderr and told["remedy"] in done.stderr
    plain = subprocess.run([one for one in command if one != "--json"], capture_output=True, text=True)
    assert plain.stdout == "" and plain.stderr == done.stderr
