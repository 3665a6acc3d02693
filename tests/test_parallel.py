"""Executors: ordered results, bounded read-ahead, state created once per worker, and a dead worker named."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import log_row
from journeyman.config import DataConfig, RedactConfig
from journeyman.errors import InputError, Interrupted, WorkerDied
from journeyman.parallel import HERE, Executor, InThisProcess, LocalProcesses
from journeyman.protocols import SilentReporter
from journeyman.sources.files import sources_of
from journeyman.stages import ingest as ingesting

TWO = LocalProcesses(2)


class Counter:
    """The state of a worker: who it is, and what it has done."""

    def __init__(self, start: int) -> None:
        self.made, self.sum = os.getpid(), start


def add(state: Counter, batch: int) -> tuple[int, int, int]:
    time.sleep(0.02 * (batch % 3))  # later batches finish earlier
    state.sum += batch
    return batch, state.made, os.getpid()


def fail_at_five(state: Counter, batch: int) -> int:
    if batch == 5:
        raise ValueError("no five")
    return batch


def die_at_five(how: int, batch: int) -> int:
    if batch == 5 and how:
        os.kill(os.getpid(), how)
    elif batch == 5:
        os._exit(7)
    time.sleep(0.05)
    return batch


def kill_number(how: int) -> int:
    return how


def place(batch: int) -> str:
    return f"log.jsonl, row {batch}"


@pytest.mark.parametrize("executor", [HERE, TWO, LocalProcesses(1)], ids=["here", "two", "one"])
def test_results_come_in_order_from_workers_with_a_state_of_their_own(executor: Executor) -> None:
    made = list(executor.map_batches(add, partial(Counter, 3), range(40)))
    assert [batch for batch, _, _ in made] == list(range(40))
    assert all(owner == worker for _, owner, worker in made)
    assert len({worker for _, _, worker in made}) <= (2 if executor is TWO else 1)
    assert (os.getpid() in {worker for _, _, worker in made}) == (executor is not TWO)


def test_batches_are_read_a_bounded_number_ahead_and_no_further_when_it_is_given_up() -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            taken.append(len(taken))
            yield taken[-1]

    results = TWO.map_batches(add, partial(Counter, 0), endless())
    assert [next(results)[0] for _ in range(4)] == [0, 1, 2, 3]
    assert 4 <= len(taken) <= 4 + 2 * 3
    results.close()  # type: ignore[attr-defined]
    assert len(taken) <= 4 + 2 * 3
    alive = [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]
    assert not [one for one in alive if "spawn_main" in " ".join(one.cmdline())]


@pytest.mark.parametrize("executor", [HERE, TWO], ids=["here", "two"])
def test_what_the_function_or_the_batches_raise_goes_through(executor: Executor) -> None:
    with pytest.raises(ValueError, match="no five"):
        list(executor.map_batches(fail_at_five, partial(Counter, 0), range(9)))

    def broken() -> Iterator[int]:
        yield 1
        raise InputError("the log ends in the middle", "Get the whole of it")

    with pytest.raises(InputError, match="ends in the middle"):
        list(executor.map_batches(add, partial(Counter, 0), broken()))


@pytest.mark.parametrize(("how", "named", "told"), [
    (signal.SIGKILL, place, "killed by SIGKILL, at log.jsonl, row 5"),
    (signal.SIGSEGV, place, "killed by SIGSEGV, at log.jsonl, row 5"),
    (0, lambda batch: "", "exit code 7, at batch 6"),
])  # fmt: skip
def test_a_dead_worker_is_named_with_its_batch(how: int, named: Callable[[int], str], told: str) -> None:
    with pytest.raises(WorkerDied) as died:
        list(TWO.map_batches(die_at_five, partial(kill_number, how), range(9), named=named))
    assert re.fullmatch(rf"a worker process died: process \d+, {told}", died.value.what)


def test_workers_that_end_with_the_run_are_no_error_of_theirs() -> None:
    with pytest.raises(Interrupted):
        list(TWO.map_batches(die_at_five, partial(kill_number, signal.SIGKILL), range(9), stopping=lambda: True))


class Elsewhere(InThisProcess):
    """An executor that records what it was given."""

    def __init__(self) -> None:
        self.places: list[str] = []

    def map_batches(
        self,
        function: Callable[[Any, Any], Any],
        setup: Callable[[], Any],
        batches: Iterable[Any],
        *,
        named: Callable[[Any], str] = lambda batch: "",
        stopping: Callable[[], bool] = lambda: False,
    ) -> Iterator[Any]:
        def noted() -> Iterator[Any]:
            for batch in batches:
                self.places.append(named(batch))
                yield batch

        return super().map_batches(function, setup, noted(), named=named, stopping=stopping)


def test_a_stage_gives_a_large_log_to_the_executor_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "log.jsonl"
    source.write_bytes(b"".join(json.dumps(log_row(number)).encode() + b"\n" for number in range(60)))
    stage = sys.modules["journeyman.stages.ingest"]
    monkeypatch.setattr(stage, "_BATCH_BYTES", 5_000)
    elsewhere = Elsewhere()
    for name, least in (("small", 1 << 30), ("large", 0)):
        monkeypatch.setattr(stage, "_WORTH_WORKERS", least)
        (tmp_path / name).mkdir()
        made = ingesting.ingest(
            sources_of([source]), DataConfig(), RedactConfig(), tmp_path / name, SilentReporter(), executor=elsewhere
        )
        assert made.kept == 60 and bool(elsewhere.places) == (name == "large")
    assert elsewhere.places[0].startswith("log.jsonl, rows 1 to ") and elsewhere.places[-1].endswith(" to 60")
