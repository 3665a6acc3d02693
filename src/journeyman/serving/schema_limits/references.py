"""All schemas that the engine reads in one schema, with its references followed, and what they add up to."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from journeyman.serving.errors import RequestError
from journeyman.serving.schema_limits.reading import Node, Reading, UnreadableError, read

MAX_NESTED = 200
MAX_EXPANDED = 10_000
MAX_NAME = 512
"""A name of 32,000 punctuation characters crashes the engine: its regular expressions recurse for each character."""
_ENDLESS = 1 << 62
_EFFECTIVE = {
    "$ref", "type", "const", "enum", "required", "pattern", "format", "minLength", "maxLength", "minItems", "maxItems",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
}  # fmt: skip
_INDEX = re.compile("[0-9]{1,9}")

Place = tuple["Place | None", str]
"""Where a schema stands, as (place of the schema around it, the rest): written out only for errors."""


class References:
    """One schema and what it refers to.

    Attributes:
        places: (place, reading) of each schema that the engine reads.

    Raises:
        RequestError: the engine would refuse one of the schemas, or there are too many.
    """

    def __init__(self, root: Node, param: str) -> None:
        self.root = root
        self.targets: dict[str, Any] = {}
        self.places: list[tuple[Place, Reading]] = []
        self._readings: dict[int, Reading] = {}
        self._resolved: dict[int, Reading | None] = {}
        waiting: list[tuple[Place, Any]] = [((None, param), root)]
        while waiting:
            place, node = waiting.pop()
            if id(node) in self._readings:
                continue
            reading = self._readings[id(node)] = _read(node, place)
            self.places.append((place, reading))
            at_most(len(self.places), MAX_EXPANDED, "schemas within each other", param)
            if reading.kind == "reference":
                waiting.append((((None, param), node["$ref"].replace("/", ".")[1:]), self._target(node["$ref"], place)))
            waiting += [((place, f".{name}"), schema) for name, schema in reversed(reading.inner)]

    def reading(self, node: Any) -> Reading:
        return self._readings[id(node)]

    def following(self, reading: Reading) -> list[Reading]:
        """The readings of the schemas to which one leads."""
        if reading.kind == "reference":
            return [self.reading(self.targets[reading.node["$ref"]])]
        return [self.reading(schema) for schema in reading.schemas]

    def resolved(self, reading: Reading | None) -> Reading | None:
        """The reading to which references lead at last; None if that is their beginning, and the engine would crash."""
        passed: list[int] = []
        while reading is not None and reading.kind == "reference":
            if (at := id(reading.node)) in self._resolved:
                reading = self._resolved[at]
                break
            passed.append(at)
            self._resolved[at] = None  # in effect if they lead back to it
            reading = self.following(reading)[0]
        self._resolved.update(dict.fromkeys(passed, reading))
        return reading

    def components(self, reading: Reading) -> Iterator[Reading]:
        """What an allOf puts together: its parts, and the alternatives of a part that is a choice."""
        for part in self.following(reading):
            for one in self.following(part) if part.kind == "choice" else [part]:
                if (found := self.resolved(one)) is not None:
                    yield found

    def sketch(self, ref: str) -> str:
        """What a reference leads to, without what has no effect on the engine's grammar."""
        waiting, found = [self.reading(self.targets[ref])], []
        while waiting:
            reading = waiting.pop()
            kept = {key: value for key, value in reading.node.items() if key in _EFFECTIVE}
            found.append([reading.kind, [name for name, _ in reading.inner], kept])
            waiting += self.following(reading) if reading.kind != "reference" else []
        return json.dumps(found, sort_keys=True)

    def size(self, count: Callable[[Reading], int]) -> int:
        """The sum of `count(reading)` with all references put in; a recursive one counts once.

        Beyond MAX_EXPANDED schemas, each counted as often as it is referred to, it is endless.
        """
        return _Size(self, count).of(self.reading(self.root))

    def _target(self, ref: str, place: Place) -> Any:
        """What a reference leads to. The engine takes its parts as they are, without the escapes of JSON Pointer."""
        if ref in self.targets:
            return self.targets[ref]
        _check_length(len(ref), place)
        value: Any = self.root
        for part in ref.split("/")[1:]:
            if isinstance(value, list):
                at = int(part) if _INDEX.fullmatch(part) else len(value)
                value = value[at] if at < len(value) else None
            else:
                value = value.get(part) if isinstance(value, dict) else None
        if not isinstance(value, dict | bool) or (ref != "#" and not ref.startswith("#/")):
            raise RequestError(
                400, f"{written(place)}.$ref must lead from the root of this schema to another one, as in "
                "#/$defs/name, without escapes (~0, ~1, %)", f"{written(place)}.$ref",
            )  # fmt: skip
        self.targets[ref] = value
        return value


class _Size:
    """Counts its steps: a schema of 100 bytes may have billions of parts with all references put in."""

    def __init__(self, references: References, count: Callable[[Reading], int]) -> None:
        self._references, self._count = references, count
        self._known: dict[str, int] = {}
        self._steps = 0

    def of(self, reading: Reading, depth: int = 0) -> int:
        self._steps += 1
        if depth > MAX_NESTED or self._steps > MAX_EXPANDED:
            return _ENDLESS
        own = self._count(reading)
        if reading.kind == "reference":
            return own + self._referred(reading, depth)
        for inner in self._references.following(reading):
            own += self.of(inner, depth + 1)
            if own >= _ENDLESS:
                break
        return own

    def _referred(self, reading: Reading, depth: int) -> int:
        ref = reading.node["$ref"]
        if ref not in self._known:
            self._known[ref] = 1  # in effect while it is being expanded, for a reference to itself
            self._known[ref] = self.of(self._references.following(reading)[0], depth + 1)
        return self._known[ref]


def _read(node: Any, place: Place) -> Reading:
    try:
        reading = read(node)
    except UnreadableError as error:
        where = written(place)
        raise RequestError(400, f"{where}: {error}, or the engine refuses it", where) from error
    _check_length(max(map(len, (*reading.node, *reading.properties)), default=0), place)
    return reading


def _check_length(longest: int, place: Place) -> None:
    if longest > MAX_NAME:
        at_most(longest, MAX_NAME, "characters in a name or reference", written(place))


def written(place: Place) -> str:
    parts: list[str] = []
    at: Place | None = place
    while at is not None:
        at, part = at
        parts.append(part)
    return "".join(reversed(parts))


def at_most(count: int, most: int, what: str, param: str) -> None:
    """Raises a RequestError if there are more than `most`."""
    if count > most:
        shown = f"{count:,}" if count < 10**12 else "over 10^12"
        raise RequestError(400, f"{param}: {shown} {what}; at most {most:,} are allowed", param)
