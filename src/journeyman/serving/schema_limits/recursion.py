"""Recursive schemas that the engine cannot follow to an end.

Recursion is fine as long as the text says which alternative it is in. If two alternatives begin alike and both lead
back to the choice, the engine follows twice as many with every level of the answer: with SmolLM2, one of 64 tokens took
17 s, and another schema of 160 characters did not end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from journeyman.serving.schema_limits.reading import Reading
from journeyman.serving.schema_limits.references import References

_Begin = tuple[str, str | None, frozenset[str] | None]
"""How the text of an alternative begins: its kind, and an object's first property with its values, if it is certain."""


class Recursion:
    def __init__(self, references: References) -> None:
        self._references = references
        self._cycles = _cycles(references.reading(references.root), references.following)
        self._values: dict[int, frozenset[str] | None] = {}

    def doubles(self, reading: Reading) -> bool:
        """Whether the engine would follow twice as many alternatives with every level of an answer."""
        mine = self._cycles.get(id(reading))
        if mine is None or reading.kind not in ("choice", "all_of"):
            return False
        if reading.kind == "all_of":
            names = [name for part in self._references.components(reading) for name in part.properties]
            return len(names) > len(set(names))
        back = [one for one in self._references.following(reading) if self._cycles.get(id(one)) == mine]
        return _alike([set(self._begins(one, set())) for one in back])

    def _begins(self, reading: Reading | None, seen: set[int]) -> Iterator[_Begin]:
        reading = self._references.resolved(reading)
        if reading is None or id(reading) in seen:
            return
        seen.add(id(reading))
        if reading.kind == "choice":
            for one in self._references.following(reading):
                yield from self._begins(one, seen)
        elif reading.kind in ("array", "tuple"):
            yield "array", None, None
        elif reading.kind in ("object", "all_of"):
            required = reading.node.get("required")
            must = {one for one in required if isinstance(one, str)} if isinstance(required, list) else set()
            first = next((name for name in reading.properties if name in must), None)
            yield "object", first, None if first is None else self._values_of(reading.properties[first])

    def _values_of(self, node: object) -> frozenset[str] | None:
        reading = self._references.resolved(self._references.reading(node))
        if reading is None or reading.kind != "values":
            return None
        if id(reading) not in self._values:
            self._values[id(reading)] = frozenset(map(json.dumps, reading.values))
        return self._values[id(reading)]


def _alike(alternatives: list[set[_Begin]]) -> bool:
    """Whether texts of two alternatives may begin in the same way: looks at each beginning once."""
    arrays = sum(any(kind == "array" for kind, _, _ in begins) for begins in alternatives)
    objects = [{begin for begin in begins if begin[0] == "object"} for begins in alternatives]
    objects = [begins for begins in objects if begins]
    if arrays > 1 or (len(objects) > 1 and any(first is None for begins in objects for _, first, _ in begins)):
        return True
    open_: dict[str, int] = {}
    users: dict[str, set[int]] = {}
    values: dict[tuple[str, str], int] = {}
    for number, begins in enumerate(objects):
        for _, first, constants in begins:
            assert first is not None or len(objects) == 1
            name = first or ""
            users.setdefault(name, set()).add(number)
            if constants is None:
                open_[name] = number
            elif any(values.setdefault((name, one), number) != number for one in constants):
                return True
    return any(len(users[name]) > 1 for name in open_)


def _cycles(root: Reading, following: Callable[[Reading], list[Reading]]) -> dict[int, int]:
    """id of a reading → number of its strongly connected component, for those on a cycle (Tarjan, not recursive)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found: dict[int, int] = {}
    itself: set[int] = set()
    work: list[tuple[Reading, Iterator[Reading]]] = []

    def enter(node: Reading) -> None:
        index[id(node)] = low[id(node)] = len(index)
        stack.append(id(node))
        on_stack.add(id(node))
        work.append((node, iter(following(node))))

    enter(root)
    while work:
        node, left = work[-1]
        for one in left:
            if one is node:
                itself.add(id(node))
            if id(one) not in index:
                enter(one)
                break
            if id(one) in on_stack:
                low[id(node)] = min(low[id(node)], index[id(one)])
        else:
            work.pop()
            if work:
                parent = id(work[-1][0])
                low[parent] = min(low[parent], low[id(node)])
            if low[id(node)] == index[id(node)]:
                members = [stack.pop()]
                while members[-1] != id(node):
                    members.append(stack.pop())
                on_stack.difference_update(members)
                if len(members) > 1 or id(node) in itself:
                    found.update(dict.fromkeys(members, index[id(node)]))
    return found
