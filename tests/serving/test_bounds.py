"""Upper bounds of tools that the engine cannot count to."""

from __future__ import annotations

from typing import Any

import pytest

from journeyman.serving.schema_limits.bounds import without_large_bounds
from journeyman.serving.schema_limits.limits import check_schemas


def test_only_large_upper_bounds_of_schemas_are_left_out() -> None:
    schema: dict[str, Any] = {
        "type": "object", "maxProperties": 5000, "required": ["maxLength"],
        "properties": {
            "maxLength": {"type": "string", "maxLength": 1001, "minLength": 2},
            "a": {"type": "array", "maxItems": 1000, "items": {"anyOf": [{"maxLength": 10**9}, {"maxItems": 10**9}]}},
            "b": {"const": {"maxLength": 5000}, "enum": [{"maxItems": 5000}], "default": {"maxItems": 5000}},
        },
    }  # fmt: skip
    ignored: list[str] = []
    assert without_large_bounds(schema, "tools[0]", ignored) == {
        "type": "object", "required": ["maxLength"],
        "properties": {
            "maxLength": {"type": "string", "minLength": 2},
            "a": {"type": "array", "maxItems": 1000, "items": {"anyOf": [{}, {}]}},
            "b": {"const": {"maxLength": 5000}, "enum": [{"maxItems": 5000}], "default": {"maxItems": 5000}},
        },
    }  # fmt: skip
    assert ignored == [f"tools[0] ({name} above 1000)" for name in ("maxProperties", "maxLength", "maxItems")]


@pytest.mark.parametrize("name", ["default", "examples", "enum", "const", "definitions", "maxLength"])
@pytest.mark.parametrize("names", ["properties", "$defs", "definitions", "patternProperties"])
def test_a_name_may_be_a_keyword(names: str, name: str) -> None:
    """Such a name is followed by a schema, not by a value."""
    schema = {"type": "object", names: {name: {"type": "string", "maxLength": 500_000}}}
    ignored: list[str] = []
    kept = without_large_bounds(schema, "tools[0]", ignored)
    assert kept == {"type": "object", names: {name: {"type": "string"}}}
    assert ignored == ["tools[0] (maxLength above 1000)"]
    check_schemas([("place", kept)])


def test_a_bound_in_a_value_is_kept_and_allowed() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "object", "default": {"maxLength": 5000}}}}
    ignored: list[str] = []
    assert without_large_bounds(schema, "tools[0]", ignored) == schema and not ignored
    check_schemas([("place", schema)])
