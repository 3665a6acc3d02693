"""References that are one name to the engine.

llama.cpp makes a grammar's rule of each schema and names it after its place, with one hyphen for all characters that
are neither letters nor digits. A reference uses a rule that has its name, even if another one was meant, in the same
schema or in another tool: `#/$defs/a_b` becomes `#/$defs/a-b`, and `#/$defs/Order_item` the property `item` of
`#/$defs/Order`. What the limits say about such a schema would not hold, and the answer would have another form.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator

from journeyman.foreign import plain
from journeyman.serving.errors import RequestError
from journeyman.serving.schema_limits.reading import Reading
from journeyman.serving.schema_limits.references import References

_OTHERS = re.compile(r"[^a-zA-Z0-9-]+")


def check_names(schemas: list[tuple[str, References]]) -> None:
    """Raises a RequestError if a reference in one of the schemas of a request would lead to another schema."""
    meant: dict[str, tuple[str, References]] = {}
    for param, references in schemas:
        for ref in references.targets:
            other, its = meant.setdefault(_escaped(ref), (ref, references))
            if other != ref or (its is not references and its.sketch(ref) != references.sketch(ref)):
                raise _one_name(param, ref, other)
    wanted, made = sorted(meant), Counter[str]()
    for _, references in schemas:
        names = {_escaped(ref): references.reading(target) for ref, target in references.targets.items()}
        made.update(_names(references, references.reading(references.root), "", sorted(names)))
        for name, reading in names.items():
            made.update(_names(references, reading, name, wanted))
    for param, references in schemas:
        for ref in references.targets:
            name = _escaped(ref)
            shorter = (name[:at] for at in range(len(name) - 1, 0, -1) if name[at:].isdecimal())
            if made[name] or any(made[one] > 1 for one in shorter):  # rules of one name are numbered
                raise _one_name(param, ref, "a part of another schema")


def _one_name(param: str, ref: str, other: str) -> RequestError:
    message = f"$ref {plain(ref, 80)} and {plain(other, 80)} are one name to the engine, but mean different schemas"
    return RequestError(400, f"{param}: {message}; rename a definition", param)


def _escaped(place: str) -> str:
    return _OTHERS.sub("-", place.removeprefix("#"))


def _names(references: References, start: Reading, name: str, wanted: list[str]) -> Iterator[str]:
    """The names of the rules for the parts of a schema, as far as one that is wanted begins with them."""
    waiting = [(name, start)]
    while waiting:
        name, reading = waiting.pop()
        for part, inner in _parts(references, reading):
            made = f"{name}-{_escaped(part)}"
            at = bisect_left(wanted, made)
            if at < len(wanted) and wanted[at].startswith(made):
                yield made
                if inner is not None:
                    waiting.append((made, inner))


def _parts(references: References, reading: Reading) -> Iterator[tuple[str, Reading | None]]:
    if reading.kind in ("object", "all_of"):
        for one in references.components(reading) if reading.kind == "all_of" else [reading]:
            for name, schema in one.properties.items():
                yield from ((name, references.reading(schema)), (f"{name}-kv", None), (f"{name}-rest", None))
        yield from ((f"additional{end}", None) for end in ("", "-k", "-kv"))
        if isinstance(more := reading.node.get("additionalProperties"), dict) and reading.kind == "object":
            yield "additional-value", references.reading(more)
        return
    if reading.kind == "string":
        yield from ((str(number), None) for number in range(str(reading.node.get("pattern", "")).count("{")))
    for number, inner in enumerate(references.following(reading) if reading.kind != "reference" else ()):
        yield {"array": "item", "tuple": f"tuple-{number}"}.get(reading.kind, str(number)), inner
