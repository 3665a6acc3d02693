"""Brings a model's files to the nodes of a cluster, once to each, and finds them there.

The files go through the object store in chunks, of which few exist at a time; a chunk is the same object for all nodes,
so that nodes can pass it on. A node keeps them in its user's cache, under the model's hash. Nothing is sent to a node
that has them there already, or that sees the very files under the same path: the machine of the driver, or shared
storage.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from journeyman.artifacts import disk_error, expanded, hash_of_file, remove_quietly, sync
from journeyman.cluster.nodes import living_nodes, on_node
from journeyman.errors import InputError, JourneymanError
from journeyman.model_files import hash_of_model, is_checkpoint, parts_of

CHUNK = 16 << 20
_ON_THE_WAY = 2
"""Chunks that are put before the nodes have written the first of them."""
_ABANDONED_S = 3600.0


@dataclass(frozen=True)
class _Part:
    """A file of the model."""

    name: str
    size: int
    sha256: str


class Shipment:
    """A model's file, all parts of a split one, or its folder. It is pickled into what runs on the nodes.

    Args:
        path: here, as model_files takes it.
        look: whether a node may see the same files under the same path.

    Raises:
        OSError: a file is missing or cannot be read.

    Attributes:
        sha256: see model_files.hash_of_model.
    """

    def __init__(self, path: Path, *, look: bool = True) -> None:
        self._source, self._look = path.absolute(), look
        files = parts_of(self._source)
        self._parts = [_Part(one.name, one.stat().st_size, hash_of_file(one)) for one in files]
        self._is_folder, self.sha256 = is_checkpoint(self._source), hash_of_model(self._source)

    def deliver(self, nodes: Iterable[str] | None = None, check: Callable[[], None] = lambda: None) -> dict[str, int]:
        """Sends what is missing; see deliver_all."""
        return deliver_all([self], nodes, check)

    def path(self) -> Path:
        """Where the model is on this node, once it has been delivered.

        Raises:
            InputError: it has not.
        """
        if self._look and self._at(self._source) == self._parts:
            return self._source
        folder = _cache() / self.sha256
        for part in self._parts:
            place = folder / part.name
            if not place.is_file() or place.stat().st_size != part.size:
                raise InputError(f"{place}: was not sent to this node completely", "Run it again")
        return folder if self._is_folder else folder / self._parts[0].name

    def missing(self) -> list[int]:
        """The numbers of the files that this node lacks, by their hashes."""
        if self._look and self._at(self._source) == self._parts:
            return []
        folder = _cache() / self.sha256
        return [number for number, part in enumerate(self._parts) if _found(folder / part.name, part) != part]

    def files(self) -> list[tuple[Path, int]]:
        """Path here and size of each file."""
        folder = self._source if self._is_folder else self._source.parent
        return [(folder / part.name, part.size) for part in self._parts]

    def receiver(self, number: int) -> _Receiving:
        """What takes the content of a file on this node."""
        return _Receiving(_cache() / self.sha256, self._parts[number])

    def _at(self, path: Path) -> list[_Part | None]:
        folder = path if self._is_folder else path.parent
        return [_found(folder / part.name, part) for part in self._parts]


def deliver_all(
    shipments: Sequence[Shipment], nodes: Iterable[str] | None = None, check: Callable[[], None] = lambda: None
) -> dict[str, int]:
    """Sends what is missing; called by the driver before anything on the nodes asks for the paths.

    Args:
        nodes: their ids; None: all nodes that are alive.
        check: called between chunks; it may raise to stop.

    Returns:
        For each node how many bytes were sent. Nodes that were lost meanwhile are left out.

    Raises:
        DiskError, InputError: a node could not write the files, or has received something else.
    """
    alive = [one["NodeID"] for one in living_nodes()]
    receivers = _Receivers(shipments, alive if nodes is None else nodes)
    try:
        return receivers.fill(check)
    finally:
        receivers.close()


def _found(path: Path, like: _Part) -> _Part | None:
    """What a file is; None if it is not even of the same size."""
    try:
        if path.stat().st_size != like.size:
            return None
        return _Part(path.name, like.size, hash_of_file(path))
    except OSError:
        return None


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache")) / "journeyman" / "shipped"


class _Receiving:
    """Writes a file next to its place, and renames it when its hash is right. Several may write the same one."""

    def __init__(self, folder: Path, part: _Part) -> None:
        self._place, self._part, self._hash = folder / part.name, part, hashlib.sha256()
        try:
            folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.mkdir(exist_ok=True, mode=0o700)
            for old in folder.glob(".*.tmp"):
                if time.time() - old.stat().st_mtime > _ABANDONED_S:
                    remove_quietly(old)
            handle, name = tempfile.mkstemp(".tmp", ".", folder)
        except OSError as error:
            raise disk_error(error, folder) from error
        self._staged, self._file = Path(name), os.fdopen(handle, "wb")

    def write(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        try:
            self._file.write(chunk)
        except OSError as error:
            self.discard()
            raise disk_error(error, self._place) from error

    def finish(self) -> None:
        try:
            self._file.close()
            if self._hash.hexdigest() != self._part.sha256:
                raise InputError(
                    f"{self._part.name}: changed while it was sent, or was damaged on the way", "Run it again"
                )
            sync(self._staged)
            self._staged.replace(self._place)
        except OSError as error:
            raise disk_error(error, self._place) from error
        finally:
            self.discard()

    def discard(self) -> None:
        remove_quietly(self._staged)


class _Receiver:
    """On a node: takes the files that are missing there. A file is named by the places of shipment and file."""

    def __init__(self, shipments: Sequence[Shipment]) -> None:
        self._shipments = shipments
        self._receiving: _Receiving | None = None

    def missing(self) -> list[tuple[int, int]]:
        return [(place, number) for place, one in enumerate(self._shipments) for number in one.missing()]

    def write(self, file: tuple[int, int], chunk: bytes) -> None:
        if self._receiving is None:
            self._receiving = self._receiver(*file)
        self._receiving.write(chunk)

    def finish(self, file: tuple[int, int]) -> None:
        receiving, self._receiving = self._receiving or self._receiver(*file), None
        receiving.finish()

    def _receiver(self, place: int, number: int) -> _Receiving:
        return self._shipments[place].receiver(number)


class _Receivers:
    """Those of several nodes."""

    def __init__(self, shipments: Sequence[Shipment], nodes: Iterable[str]) -> None:
        self._shipments = shipments
        kind = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(_Receiver)
        self._names = {one["NodeID"]: one["NodeManagerHostname"] for one in ray.nodes()}
        self._lost: set[str] = set()
        shared = ray.put(shipments)
        self._actors = {node: kind.options(scheduling_strategy=on_node(node)).remote(shared) for node in nodes}

    def fill(self, check: Callable[[], None]) -> dict[str, int]:
        missing = self._answers({node: actor.missing.remote() for node, actor in self._actors.items()})
        sent = dict.fromkeys(missing, 0)
        for place, shipment in enumerate(self._shipments):
            for number, (path, size) in enumerate(shipment.files()):
                wanting = [node for node, files in missing.items() if (place, number) in files]
                if wanting:
                    for node in self._send((place, number), path, wanting, check):
                        sent[node] += size
        return {node: sent[node] for node in self._left(sent)}

    def _send(
        self, file: tuple[int, int], path: Path, wanting: Sequence[str], check: Callable[[], None]
    ) -> Iterable[str]:
        """Sends a file; returns the nodes that have it."""
        on_the_way: deque[dict[str, Any]] = deque()
        for chunk in _chunks(path):
            check()
            reference = ray.put(chunk)
            on_the_way.append({node: self._actors[node].write.remote(file, reference) for node in self._left(wanting)})
            del reference
            if len(on_the_way) >= _ON_THE_WAY:
                self._answers(on_the_way.popleft())
        for writes in on_the_way:
            self._answers(writes)
        return self._answers({node: self._actors[node].finish.remote(file) for node in self._left(wanting)})

    def close(self) -> None:
        for actor in self._actors.values():
            ray.kill(actor)

    def _left(self, nodes: Iterable[str]) -> list[str]:
        return [node for node in nodes if node not in self._lost]

    def _answers(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The answers of the nodes that are not lost."""
        answers = {}
        for node, reference in asked.items():
            try:
                answers[node] = ray.get(reference)
            except RayTaskError as error:
                if isinstance(error.cause, JourneymanError):
                    cause = error.cause
                    raise type(cause)(f"node {self._names.get(node, node)}: {cause.what}", cause.remedy) from None
                raise
            except RayError:
                self._lost.add(node)
        return answers


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
