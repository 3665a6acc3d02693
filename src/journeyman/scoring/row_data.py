"""Validates a row's check data independently of any answer; used by curate and by the checks."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema_specifications import REGISTRY
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from journeyman.reasons import Reason
from journeyman.reasons.checking import DataInvalid, DataOfOtherType, DataTooLarge, SchemaEndless, SchemaReference
from journeyman.scoring.row_files import BadFile, row_files

MOST_PATTERN = 10_000
_MOST_VALUES, _DEEPEST = 10_000, 60
_TRIED: Sequence[Any] = (None, True, 0, 1.5, "", "a", [], [0], {}, {"a": 0})
"""Documents that a schema must be able to validate without endless recursion."""


class BadData(ValueError):
    """Check data that no check can use."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.sentence())
        self.reason = reason


def pattern_of(data: Mapping[str, Any]) -> re.Pattern[str]:
    """The compiled `pattern`.

    Raises:
        BadData: it is not a valid pattern.
    """
    pattern = data["pattern"]
    if not isinstance(pattern, str):
        raise BadData(DataOfOtherType("pattern", "text"))
    if len(pattern) > MOST_PATTERN:
        raise BadData(DataTooLarge("pattern", f"{len(pattern):,} characters, at most {MOST_PATTERN:,}"))
    try:
        return re.compile(pattern, re.MULTILINE)
    except (re.error, RecursionError, OverflowError) as error:
        raise BadData(DataInvalid("pattern", str(error))) from error


def validator_of(data: Mapping[str, Any]) -> Draft202012Validator:
    """A validator for `schema`. It resolves references within the schema and to the meta-schemas, and fetches nothing.

    Raises:
        BadData: the schema is invalid, or refers to something that is not in it.
    """
    schema = data["schema"]
    if not isinstance(schema, dict):
        raise BadData(DataOfOtherType("schema", "an object"))
    if _size(schema)[0] > _MOST_VALUES or too_deep(schema):
        raise BadData(DataTooLarge("schema", f"more than {_MOST_VALUES:,} values, or deeper than {_DEEPEST}"))
    try:
        Draft202012Validator.check_schema(schema)
        _resolved(schema)
    except SchemaError as error:
        raise BadData(DataInvalid("schema", f"{error.json_path}: {error.message}")) from error
    except Unresolvable as error:
        raise BadData(SchemaReference(str(error.ref))) from error
    except Exception as error:  # the libraries raise many types, for invalid URIs or numbers that are too large
        raise BadData(DataInvalid("schema", f"{type(error).__name__}: {error}")) from error
    return Draft202012Validator(schema, registry=REGISTRY)


def too_deep(value: Any) -> bool:
    """Whether a JSON value is nested too deeply to be compared with a schema."""
    return _size(value, most=10 * _MOST_VALUES)[1] > _DEEPEST


def _size(value: Any, most: int = _MOST_VALUES) -> tuple[int, int]:
    """The number of values and their depth, counted up to the limits."""
    values, depth, level = 0, 0, [value]
    while level and values <= most and depth <= _DEEPEST:
        values, depth = values + len(level), depth + 1
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return values, depth


def _resolved(schema: dict[str, Any]) -> None:
    """Looks up every reference, relative to where it occurs."""
    root = DRAFT202012.create_resource(schema)
    waiting = [(root, REGISTRY.resolver_with_root(root))]
    while waiting:
        resource, resolver = waiting.pop()
        if isinstance(resource.contents, dict):
            for keyword in ("$ref", "$dynamicRef"):
                if keyword in resource.contents:
                    resolver.lookup(resource.contents[keyword])
        waiting += [(inner, resolver.in_subresource(inner)) for inner in resource.subresources()]


def _schema(data: Mapping[str, Any]) -> None:
    validator = validator_of(data)
    for document in _TRIED:
        try:
            validator.is_valid(document)
        except RecursionError as error:
            raise BadData(SchemaEndless()) from error


def _tests(data: Mapping[str, Any]) -> None:
    _python("tests", data["tests"])


def _mutants(data: Mapping[str, Any]) -> None:
    _python("right", data.get("right"))
    wrong = data.get("wrong")
    if not isinstance(wrong, list) or not wrong or not all(isinstance(one, str) for one in wrong):
        raise BadData(DataOfOtherType("wrong", "a list of strings"))


def _python(name: str, source: Any) -> None:
    if not isinstance(source, str):
        raise BadData(DataOfOtherType(name, "text"))
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadData(DataInvalid(name, f"not valid Python: {type(error).__name__}: {error}")) from error


def _contains(data: Mapping[str, Any]) -> None:
    wanted = data["contains"]
    texts = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise BadData(DataOfOtherType("contains", "text or a list of strings"))


def _expected(data: Mapping[str, Any]) -> None:
    if not isinstance(data["expected"], str):
        raise BadData(DataOfOtherType("expected", "text"))


def _similarity(data: Mapping[str, Any]) -> None:
    least = data["similarity"]
    if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least <= 1:
        raise BadData(DataOfOtherType("similarity", "a number from 0 to 1"))


def _calls(data: Mapping[str, Any]) -> None:
    calls = data["calls"]
    if not isinstance(calls, list) or not all(isinstance(call, dict) and "name" in call for call in calls):
        raise BadData(DataOfOtherType("calls", "a list of {name, arguments}"))


def _files(data: Mapping[str, Any]) -> None:
    try:
        row_files(data["files"])
    except BadFile as error:
        raise BadData(DataInvalid("files", str(error))) from error


KEYS: Mapping[str, Mapping[str, Callable[[Mapping[str, Any]], object]]] = {
    "exact": {"expected": _expected},
    "normalized": {"expected": _expected},
    "contains": {"contains": _contains},
    "regex": {"pattern": pattern_of},
    "similarity": {"expected": _expected, "similarity": _similarity},
    "json_schema": {"schema": _schema},
    "tool_call": {"calls": _calls},
    "python_tests": {"tests": _tests},
    "catches_mutants": {"right": _mutants, "wrong": _mutants},
    "patch_applies": {"files": _files},
}
"""check → key of a row's data → its validator. A missing key is not a fault: the answer is then unscored or compared
with the teacher's."""


def looks_at_data(names: Iterable[str]) -> list[str]:
    """The checks among `names` that use a row's check data."""
    return [name for name in names if name in KEYS]


def fault_of(names: Sequence[str], data: Mapping[str, Any]) -> tuple[str, Reason] | None:
    """The first check that can never score a row with this data, and why; None if all of them can."""
    for name in names:
        for key, look in KEYS.get(name, {}).items():
            if key in data:
                try:
                    look(data)
                except BadData as error:
                    return name, error.reason
    return None
