"""Which nodes or GPUs of a cluster train which adapter, if several are trained at the same time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from journeyman.cluster.nodes import living_nodes, name_of

_UNEVEN = 1.5
"""Adapters are trained one after another if the slowest would take so many times longer than all, evenly divided."""
_MOST_ON_ONE = 4
"""Adapters on one GPU. Each has the base in its memory, and they take turns."""
_OF_MEMORY = 0.9


@dataclass(frozen=True)
class Node:
    """A node that is alive.

    Attributes:
        cards: GPUs.
        memory: bytes that Ray says it has.
    """

    id: str
    name: str
    cpus: int
    cards: int
    memory: float = math.inf

    def units(self, processor: bool) -> int:
        """How many ranks of one job it can have: one for each GPU, or one for its processor."""
        return min(self.cpus, 1) if processor else self.cards


def nodes_now() -> list[Node]:
    """All that are alive."""
    found = []
    for one in living_nodes():
        has: Callable[[str, float], float] = one["Resources"].get
        cpus, cards = int(has("CPU", 0)), int(has("GPU", 0))
        found.append(Node(one["NodeID"], name_of(one), cpus, cards, has("memory", math.inf)))
    return sorted(found, key=lambda one: one.id)


@dataclass(frozen=True)
class Place:
    """Where a worker runs.

    Attributes:
        portion: of a GPU or, if the plan is for processors, of the CPUs of the node.
    """

    node: Node
    portion: float


@dataclass(frozen=True)
class Needs:
    """What one adapter needs.

    Attributes:
        processor: it is trained on processors.
        least: so many GPUs.
        memory: bytes on each device; 0: not known.
        card: bytes that are free on a GPU; the driver's stands for all.
        threads: on a processor, at least so many.
    """

    processor: bool
    least: int = 1
    memory: float = 0.0
    card: float = math.inf
    threads: int = 1

    def fit(self, node: Node) -> int:
        """How many adapters can be trained on one unit of a node at the same time, whatever their number."""
        if self.least > 1:
            return 1
        has = node.memory if self.processor else self.card
        room = _OF_MEMORY * has / self.memory if self.memory else math.inf
        most = node.cpus // self.threads if self.processor else _MOST_ON_ONE
        return max(1, int(min(room, most)))


@dataclass(frozen=True)
class Division:
    """How machines are divided.

    Attributes:
        sizes: of the first adapter that each part trains.
        on_one: so many adapters are trained on one unit, if they fit.
    """

    sizes: Sequence[int] = (1,)
    on_one: int = 1


def divided(sizes: Sequence[int], nodes: Sequence[Node], needs: Needs) -> Division | None:
    """How some nodes train adapters at the same time; None: better one after another, each on all of them.

    With enough of them, each adapter has its own nodes or GPUs, more of them if it is larger. With fewer, as many
    adapters as fit are trained at a time.

    Args:
        sizes: of the adapters' training, largest first.
    """
    units = sum(node.units(needs.processor) for node in nodes) // needs.least
    if not units:
        return None
    if units >= len(sizes):
        slowest = max(size / count for size, count in zip(sizes, in_proportion(sizes, units), strict=True))
        found = Division(sizes)
    else:
        on_one = math.ceil(len(sizes) / units)
        places = sum(node.units(needs.processor) * min(on_one, needs.fit(node)) for node in nodes) // needs.least
        # Adapters on one GPU take turns, so the last one has it for itself; the threads of workers are fixed.
        slowest = sizes[0] * (max(min(on_one, needs.fit(node)) for node in nodes) if needs.processor else 1)
        found = Division(sizes[:places], on_one)
    return found if len(found.sizes) > 1 and slowest <= _UNEVEN * sum(sizes) / units else None


def in_proportion(sizes: Sequence[int], count: int) -> list[int]:
    """Divides `count` things so that the largest quotient of size and things is as small as it can be; all get one."""
    has = [1] * len(sizes)
    for _ in range(count - len(sizes)):
        slowest = max(range(len(sizes)), key=lambda number: (sizes[number] / has[number], -number))
        has[slowest] += 1
    return has


class Shares:
    """What each part of a cluster has. Its methods may be called by any thread.

    Args:
        find: the nodes that are alive.
    """

    def __init__(
        self, needs: Needs, division: Division | None = None, find: Callable[[], Sequence[Node]] = nodes_now
    ) -> None:
        self._needs, self._division, self._find = needs, division or Division(), find
        self._has: dict[int, Mapping[str, int]] = {part: {} for part in range(len(self._division.sizes))}
        self._lock = Lock()

    def nodes(self) -> list[Node]:
        """Those that can train."""
        return [node for node in self._find() if node.units(self._needs.processor)]

    def take(self, part: int) -> list[Place]:
        """What a part gets now, in place of what it had; nothing if less than it needs is free."""
        with self._lock:
            self._has[part] = {}
            free = {node: self._places(node) - self._taken(node) for node in self.nodes()}
            wanted, places = self._wanted(part, list(free)), list[Place]()
            for node in sorted(free, key=lambda one: (-free[one], one.id)):
                count = min(wanted - len(places), free[node])
                places += [Place(node, 1 / self._together(node))] * count
            if len(places) < self._needs.least:
                return []
            self._has[part] = Counter(place.node.id for place in places)
            return places

    def waits(self, part: int) -> bool:
        """Whether other parts have something that this one could get later."""
        with self._lock:
            return any(has for other, has in self._has.items() if other != part)

    def leave(self, part: int) -> None:
        """A part ends; what it had is free."""
        with self._lock:
            self._has.pop(part, None)

    def _wanted(self, part: int, nodes: Sequence[Node]) -> int:
        active, least = sorted(self._has), self._needs.least
        if self._division.on_one > 1:
            return least
        if len(self._division.sizes) == 1:
            return sum(map(self._places, nodes))
        sizes = [self._division.sizes[one] for one in active]
        return least * in_proportion(sizes, sum(map(self._places, nodes)) // least)[active.index(part)]

    def _taken(self, node: Node) -> int:
        return sum(has.get(node.id, 0) for has in self._has.values())

    def _places(self, node: Node) -> int:
        return node.units(self._needs.processor) * self._together(node)

    def _together(self, node: Node) -> int:
        return min(self._division.on_one, self._needs.fit(node))
