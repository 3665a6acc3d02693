"""The ledger: a number for every request, and a row for every number. A thread writes what has ended.

    begin ── journal (in memory) ── end ── queue ── row (in a process of its own) ── file ── journal removed

Rows are made in another process, because finding secrets in a long conversation would hold up the answers of others. A
row that cannot be written stays in the journal and is tried again.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

from journeyman.artifacts import remove_quietly
from journeyman.errors import DiskError, JourneymanError, WorkerDied
from journeyman.gateway import journal
from journeyman.gateway.journal import ExchangeJournal
from journeyman.gateway.row_files import RowFiles
from journeyman.gateway.rows import UNBUILT, Row, RowSettings, Task, bare_row, rows_of
from journeyman.parallel import Worker

_AGAIN_S, _SYNC_S = 2.0, 1.0
_GATHER_S = 0.2
"""Rows are made for several exchanges together: each time, the threads take turns with that of the answers."""
_MOST_AT_ONCE, _MOST_BYTES_AT_ONCE = 64, 8 << 20
Told = Callable[[str], None]


class RowMaker(Protocol):
    """Makes rows, here or in another process."""

    def __call__(self, tasks: Sequence[Task]) -> list[Row]: ...

    def close(self) -> None: ...


class MakerHere:
    """Makes rows in the calling thread."""

    def __init__(self, settings: RowSettings) -> None:
        self._settings = settings

    def __call__(self, tasks: Sequence[Task]) -> list[Row]:
        return rows_of(self._settings, tasks)

    def close(self) -> None:
        pass


class MakerApart:
    """Makes rows in a process of its own. A row on which it dies again has no contents."""

    def __init__(self, settings: RowSettings) -> None:
        self._worker = Worker(partial(_itself, settings))

    def __call__(self, tasks: Sequence[Task]) -> list[Row]:
        try:
            return self._worker.call(rows_of, tasks)
        except WorkerDied:
            return [self._alone(task) for task in tasks]

    def _alone(self, task: Task) -> Row:
        try:
            return self._worker.call(rows_of, [task])[0]
        except WorkerDied:
            return bare_row(task, UNBUILT)

    def close(self) -> None:
        self._worker.close()


def _itself(settings: RowSettings) -> RowSettings:
    return settings


@dataclass
class Counts:
    """What health and metrics say.

    Attributes:
        requests: that were given a number, in all runs.
        rows: written by this process.
        waiting: ended exchanges without a row.
        lost: exchanges of this process whose contents are not or not all recorded.
        trouble: why no row can be written at present; empty if all is well.
    """

    requests: int = 0
    rows: int = 0
    waiting: int = 0
    lost: int = 0
    trouble: str = ""


class Ledger:
    """Use it in the process that holds the lock of `folder`.

    Args:
        told: hears what a person must know.
        heard: gets each row that was written, in the ledger's thread.

    Raises:
        DiskError: the folder cannot be written.
        UsageError: the journal's folder is somebody else's.
    """

    def __init__(
        self, folder: Path, settings: RowSettings, make: RowMaker, told: Told, heard: Callable[[Row], None]
    ) -> None:
        record = settings.record
        self._told, self._heard, self._make = told, heard, make
        self._files = RowFiles(folder, record.rows_mib << 20)
        place = journal.place_of(folder, record.journal)
        self.journal, self.in_memory = journal.made(place), place.in_memory
        self._most = record.journal_mib << 20
        self._open: set[ExchangeJournal] = set()
        self._held = 0
        self._queue: queue.SimpleQueue[tuple[Task, int] | None] = queue.SimpleQueue()
        self._waiting: deque[tuple[Task, int]] = deque()
        self._closing = threading.Event()
        self.counts = Counts()
        self._recover()
        self._thread = threading.Thread(target=self._run, name="ledger")
        self._thread.start()

    def _recover(self) -> None:
        """Queues what a process left that ended before it had written all rows."""
        left = journal.numbers(self.journal)
        self.counts.requests = max([self._files.assigned, *left])
        self.recovered = 0
        for number in left:
            path = journal.file_of(self.journal, number)
            if number in self._files.last:
                remove_quietly(path)
                continue
            self.recovered += 1
            size = path.stat().st_size
            self._held += size
            self._put(Task(path, number, 0), size)

    # --- the event loop's side --------------------------------------------------------------------

    def begin(self) -> ExchangeJournal:
        """Gives a request its number and its file."""
        self.counts.requests += 1
        exchange = ExchangeJournal(self.journal, self.counts.requests, self._room)
        self._open.add(exchange)
        return exchange

    def _room(self) -> int:
        return self._most - self._held - sum(one.size for one in self._open)

    def end(self, exchange: ExchangeJournal, outcome: str, why: str = "", keys: tuple[str, ...] = ()) -> None:
        """The exchange has ended: its row is written soon."""
        exchange.note("end", {"outcome": outcome, "why": why, "ms": exchange.ms})
        exchange.close()
        self._open.discard(exchange)
        if not exchange.intact:
            self.counts.lost += 1
        self._held += exchange.size
        task = Task(exchange.path, exchange.number, 0, keys, not exchange.intact, outcome, why)
        self._put(task, exchange.size)

    def _put(self, task: Task, size: int) -> None:
        self.counts.waiting += 1
        self._queue.put((task, size))

    def close(self) -> None:
        """Writes what can be written, and ends. What cannot is in the journal, for the next start. Twice is once."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._queue.put(None)
        self._thread.join()
        self._make.close()
        self._files.close()
        with suppress(OSError):  # it is not empty
            self.journal.rmdir()

    # --- the thread's side ------------------------------------------------------------------------

    def _run(self) -> None:
        tried = synced = time.monotonic()
        while True:
            pause = _AGAIN_S if self._waiting else _SYNC_S
            try:
                item = self._queue.get(timeout=pause)
            except queue.Empty:
                item = ()  # type: ignore[assignment]
            if item:
                self._waiting.append(item)
                self._closing.wait(_GATHER_S)
                self._take_queued()
            now = time.monotonic()
            if self._waiting and (not self.counts.trouble or item is None or now - tried >= _AGAIN_S):
                tried = now
                try:
                    self._write_all()
                except Exception as error:  # without this thread, no further row would be written
                    self._trouble(JourneymanError(f"{type(error).__name__}: {error}"))
            if now - synced >= _SYNC_S:
                synced = now
                self._sync()
            if item is None:
                return

    def _write_all(self) -> None:
        while batch := self._batch():
            assigned = self.counts.requests
            rows = self._make([replace(task, assigned=assigned) for task, _ in batch])
            for (task, size), row in zip(batch, rows, strict=True):
                try:
                    self._files.append(row.line)
                except DiskError as error:
                    self._trouble(error)
                    return
                if self.counts.trouble:
                    self.counts.trouble = ""
                    self._told("rows are written again")
                self._waiting.popleft()
                self._held -= size
                self._count_lost(task, row)
                self.counts.waiting -= 1
                self.counts.rows += 1
                self._heard(row)
            self._take_queued()

    def _count_lost(self, task: Task, row: Row) -> None:
        """Counts what is lost, once; a file that no row could be made of is kept, under a name that is no number."""
        if row.lost and not task.incomplete:  # else `end` has counted it
            self.counts.lost += 1
        if row.unbuilt and task.path.exists():
            kept = task.path.with_name(f"{task.path.name}.unread")
            with suppress(OSError):
                task.path.replace(kept)
            self._told(f"warning: no row could be made of exchange {task.number}: its contents are in {kept}")
            return
        remove_quietly(task.path)

    def _batch(self) -> list[tuple[Task, int]]:
        """The next exchanges, as many as are made at once; one, while it is not known whether there is space."""
        batch, size = list[tuple[Task, int]](), 0
        for one in islice(self._waiting, 1 if self.counts.trouble else _MOST_AT_ONCE):
            size += one[1]
            if batch and size > _MOST_BYTES_AT_ONCE:
                break
            batch.append(one)
        return batch

    def _take_queued(self) -> None:
        """Takes what has ended in the meantime; the end itself is left for `_run`."""
        with suppress(queue.Empty):
            while (item := self._queue.get_nowait()) is not None:
                self._waiting.append(item)
            self._queue.put(None)

    def _sync(self) -> None:
        try:
            self._files.sync()
        except DiskError as error:
            self._trouble(error)

    def _trouble(self, error: JourneymanError) -> None:
        if not self.counts.trouble:
            self._told(
                f"warning: {error.what}: exchanges are NOT written; answers go on, and what has been recorded stays in "
                f"{self.journal} until there is space, at most record.journal_mib"
            )
        self.counts.trouble = error.code
