"""References within a JSON schema: its size with all of them put in, and those that the engine cannot follow to an end.

Recursion is fine as long as the text says which alternative it is in. If two alternatives begin alike and both lead
back to the choice, the engine follows twice as many with every level of the answer: with SmolLM2, one of 64 tokens took
17 s, and another schema of 160 characters did not end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

MAX_NESTED = 200
_DEFINITIONS = ("$defs", "definitions")
_ENDLESS = 1 << 62

Node = dict[str, Any]
_Begin = tuple[str, str | None, frozenset[str] | None]
"""How the text of an alternative begins: its type, and an object's first property with its values, if it is certain."""


class References:
    """The references of one schema."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self._cycles: dict[int, int] | None = None

    def size(self, count: Callable[[str, Any], int]) -> int:
        """The sum of `count(key, value)` over all keys, with all references put in; a recursive one counts once."""
        return _Size(self, count).of("", self.root)

    def target(self, ref: str) -> Any:
        """The target of a reference; None for one that the engine will refuse."""
        value: Any = self.root
        for part in ref.removeprefix("#").split("/")[1:]:
            value = value.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(value, dict) else None
        return value

    def resolved(self, node: Any) -> Any:
        """The node to which a reference leads at last; None if that is itself, on which the engine would crash."""
        seen: set[str] = set()
        while isinstance(node, dict) and isinstance(ref := node.get("$ref"), str):
            if ref in seen:
                return None
            seen.add(ref)
            node = self.target(ref)
        return node

    def loops(self, node: Node) -> bool:
        """Whether a node is a reference that leads to itself."""
        return (
            isinstance(node.get("$ref"), str)
            and self.target(node["$ref"]) is not None
            and (self.resolved(node) is None)
        )

    def doubles(self, node: Node) -> bool:
        """Whether the engine would follow twice as many alternatives with every level of an answer."""
        if not any(isinstance(node.get(key), list) for key in ("anyOf", "oneOf", "allOf", "type")):
            return False
        mine = self._cycle_of(node)
        if mine is None:
            return False
        if isinstance(node.get("allOf"), list) and not _is_choice(node):
            names = [name for part in self._parts(node["allOf"]) for name in part.get("properties", {})]
            return len(names) > len(set(names))
        back = [one for one in _alternatives(node) if one is node or self._cycle_of(one) == mine]
        begins = [set(self._begins(one, set(), kind)) for one, kind in zip(back, _kinds(node, back), strict=True)]
        return any(_alike(a, b) for one, other in combinations(begins, 2) for a in one for b in other)

    def _parts(self, all_of: list[Any]) -> Iterator[Node]:
        for part in all_of:
            for one in part["anyOf"] if isinstance(part, dict) and isinstance(part.get("anyOf"), list) else [part]:
                found = self.resolved(one)
                if isinstance(found, dict) and isinstance(found.get("properties", {}), dict):
                    yield found

    def _begins(self, node: Any, seen: set[int], kind: Any = None) -> Iterator[_Begin]:
        node = self.resolved(node)
        if not isinstance(node, dict):
            return
        if kind is None and _is_choice(node):
            if id(node) not in seen:
                seen.add(id(node))
                for one, its in zip(_alternatives(node), _kinds(node, _alternatives(node)), strict=True):
                    yield from self._begins(one, seen, its)
            return
        kind = kind or node.get("type") or ("array" if "items" in node or "prefixItems" in node else "object")
        if kind != "object":
            yield str(kind), None, None
            return
        named, required = node.get("properties"), node.get("required")
        must = required if isinstance(required, list) else []
        first = next((name for name in named if name in must), None) if isinstance(named, dict) else None
        yield "object", first, self._values(named[first]) if first is not None and named else None

    def _values(self, node: Any) -> frozenset[str] | None:
        node = self.resolved(node)
        if isinstance(node, dict) and not _is_choice(node):
            if "const" in node:
                return frozenset([json.dumps(node["const"])])
            if isinstance(node.get("enum"), list):
                return frozenset(map(json.dumps, node["enum"]))
        return None

    def _cycle_of(self, node: Any) -> int | None:
        """A number that all nodes have that lead to each other; None for a node that does not lead to itself."""
        if self._cycles is None:
            self._cycles = _cycles(self.root, self._next)
        return self._cycles.get(id(node))

    def _next(self, node: Node) -> list[Node]:
        inner: list[Any] = [value for key, value in node.items() if key not in _DEFINITIONS]
        found = [self.target(node["$ref"])] if isinstance(node.get("$ref"), str) else []
        while inner:
            value = inner.pop()
            if isinstance(value, dict):
                found.append(value)
            elif isinstance(value, list):
                inner += value
        return [one for one in found if isinstance(one, dict)]


class _Size:
    def __init__(self, references: References, count: Callable[[str, Any], int]) -> None:
        self._references, self._count = references, count
        self._known: dict[str, int] = {}

    def of(self, key: str, value: Any, depth: int = 0) -> int:
        if depth > MAX_NESTED:
            return _ENDLESS
        own = self._count(key, value)
        if isinstance(value, list):
            return own + sum(self.of("", one, depth + 1) for one in value)
        if not isinstance(value, dict):
            return own
        own += sum(self.of(name, inner, depth + 1) for name, inner in value.items() if name not in _DEFINITIONS)
        ref = value.get("$ref")
        return own + self._referred(ref, depth) if isinstance(ref, str) else own

    def _referred(self, ref: str, depth: int) -> int:
        if ref not in self._known:
            self._known[ref] = 1  # in effect while it is being expanded, for a reference to itself
            self._known[ref] = self.of("", self._references.target(ref), depth + 1)
        return self._known[ref]


def _is_choice(node: Node) -> bool:
    return any(isinstance(node.get(key), list) for key in ("oneOf", "anyOf", "type"))


def _alternatives(node: Node) -> list[Any]:
    """The alternatives in the order in which the engine looks for them; a list of types is the node with each type."""
    for key in ("oneOf", "anyOf"):
        if isinstance(node.get(key), list):
            return list(node[key])
    return [node for _ in node["type"]]


def _kinds(node: Node, alternatives: list[Any]) -> list[Any]:
    """The type of each alternative that stands for one of a list of types; None for others."""
    return node["type"] if alternatives and alternatives[0] is node else [None] * len(alternatives)


def _alike(one: _Begin, other: _Begin) -> bool:
    """Whether texts of both may begin in the same way."""
    if one[0] != other[0] or one[0] not in ("object", "array"):
        return False
    if None in (one[1], other[1]) or one[0] == "array":
        return True
    disjoint = one[2] is not None and other[2] is not None and not one[2] & other[2]
    return one[1] == other[1] and not disjoint


def _cycles(root: Node, following: Callable[[Node], list[Node]]) -> dict[int, int]:
    """id of a node → number of its strongly connected component, for nodes on a cycle (Tarjan, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found: dict[int, int] = {}
    itself: set[int] = set()
    work: list[tuple[Node, Iterator[Node]]] = []

    def enter(node: Node) -> None:
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
                members = stack[stack.index(id(node)) :]
                del stack[-len(members) :]
                on_stack.difference_update(members)
                if len(members) > 1 or id(node) in itself:
                    found.update(dict.fromkeys(members, index[id(node)]))
    return found
