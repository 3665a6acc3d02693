"""How the engine reads one schema: which of its keywords counts, and to which schemas that leads.

llama.cpp looks for keywords in a fixed order and ignores all others, so `anyOf` beside `properties` means that the
properties have no effect, and what stands in `definitions` is read only if a reference leads there. A form that it
refuses is refused here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
_FORMATS = ("date", "time", "date-time", "uuid", "uuid1", "uuid2", "uuid3", "uuid4", "uuid5")

Node = dict[str, Any]
Kind = Literal["reference", "choice", "all_of", "values", "object", "array", "tuple", "string", "integer", "other"]


class UnreadableError(Exception):
    """A schema of a form that the engine refuses."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What one schema means to the engine.

    Attributes:
        inner: (place within the node, schema) of the schemas that it contains, in the order in which they are read;
            for a list of types, the schema once with each type.
    """

    node: Node
    kind: Kind
    inner: tuple[tuple[str, Any], ...] = ()

    @property
    def schemas(self) -> list[Any]:
        return [schema for _, schema in self.inner]

    @property
    def values(self) -> list[Any]:
        """The constants of a schema that consists of nothing else."""
        if self.kind != "values":
            return []
        return [self.node["const"]] if "const" in self.node else list(self.node["enum"])

    @property
    def properties(self) -> Node:
        named: Node = self.node.get("properties", {}) if self.kind == "object" else {}
        return named


def read(node: Any) -> Reading:
    """The engine's reading.

    Raises:
        UnreadableError: the engine would refuse the schema.
    """
    if isinstance(node, bool):  # the engine refuses these too, but only if it makes a grammar of the schema
        return Reading({}, "other")
    if not isinstance(node, dict):
        raise UnreadableError("must be an object, a JSON schema")
    if "$ref" in node:
        if not isinstance(node["$ref"], str):
            raise UnreadableError("$ref must be text")
        return Reading(node, "reference")
    for key in ("oneOf", "anyOf"):
        if key in node:
            return Reading(node, "choice", tuple(_list(node, key)))
    kind = node.get("type")
    if isinstance(kind, list):
        if not 0 < len(kind) <= len(TYPES) or not all(isinstance(one, str) for one in kind):
            raise UnreadableError(f"type must be text or a list of 1 to {len(TYPES)} texts")
        return Reading(node, "choice", tuple((f"type[{at}]", {**node, "type": one}) for at, one in enumerate(kind)))
    if "const" in node or "enum" in node:
        if "const" not in node:
            list(_list(node, "enum"))
        return Reading(node, "values")
    if kind not in (None, "", *TYPES):
        raise UnreadableError(f"type must be one of {', '.join(TYPES)}")
    return _structure(node, kind)


def _structure(node: Node, kind: str | None) -> Reading:
    """The reading of a schema whose type and structural keywords decide."""
    described = "properties" in node or node.get("additionalProperties", True) is not True
    if "allOf" in node and (kind == "string" or ((not kind or kind == "object") and not described)):
        return Reading(node, "all_of", tuple(_list(node, "allOf")))
    if kind == "object" or (not kind and described):
        return Reading(node, "object", tuple(_members(node)))
    if kind == "array" or (not kind and ("items" in node or "prefixItems" in node)):
        return _array(node)
    if kind == "string" or (not kind and ("pattern" in node or node.get("format") in _FORMATS)):
        if not isinstance(node.get("pattern", ""), str):
            raise UnreadableError("pattern must be text")
        return Reading(node, "string")
    return Reading(node, "integer" if kind == "integer" else "other")


def _members(node: Node) -> Iterator[tuple[str, Any]]:
    named, more = node.get("properties", {}), node.get("additionalProperties", True)
    if not isinstance(named, dict):
        raise UnreadableError("properties must be an object")
    yield from ((f"properties.{name}", schema) for name, schema in named.items())
    if not isinstance(more, bool):
        yield "additionalProperties", more


def _array(node: Node) -> Reading:
    key = "items" if "items" in node else "prefixItems"
    if (key == "prefixItems" and key in node) or isinstance(node.get(key), list):
        return Reading(node, "tuple", tuple(_list(node, key, least=0)))
    return Reading(node, "array", ((key, node[key]),) if key in node else ())


def _list(node: Node, key: str, least: int = 1) -> Iterator[tuple[str, Any]]:
    if not isinstance(node[key], list) or len(node[key]) < least:
        raise UnreadableError(f"{key} must be a list that is not empty" if least else f"{key} must be a list")
    yield from ((f"{key}[{at}]", one) for at, one in enumerate(node[key]))
