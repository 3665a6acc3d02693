"""Upper bounds of tools that the engine cannot count to."""

from __future__ import annotations

from typing import Any

from journeyman.serving.schema_limits.bounds import without_large_bounds


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
