"""Tool calls that an answer must contain.

llama.cpp accepts `tool_choice: required`, but lets a model write text before the call, without end. So a required call
is asked for as JSON of a schema that allows nothing else, `{"name": …, "arguments": …}`, and that JSON is turned into a
call again. The prompt shows the tools as always.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from journeyman.serving.dialects.dialect import new_id

_BEGIN = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*')
_MAY_BE_END = re.compile(r"[}\s]*\Z")


def forced(request: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's request whose answer is a call of one of its tools, as JSON in the content."""
    tools = [tool["function"] for tool in request["tools"]]
    schema = {
        "anyOf": [_call(tool["name"], f"tool{place}") for place, tool in enumerate(tools)],
        "$defs": {f"tool{place}": _parameters(tool, f"tool{place}") for place, tool in enumerate(tools)},
    }
    kept = {name: value for name, value in request.items() if name != "parallel_tool_calls"}
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    return {**kept, "tool_choice": "none", "response_format": form}


def _call(name: str, definition: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": {"$ref": f"#/$defs/{definition}"}},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _parameters(tool: Mapping[str, Any], definition: str) -> Any:
    parameters = tool.get("parameters")
    return _moved(parameters, f"#/$defs/{definition}") if parameters else {"type": "object"}


def _moved(schema: Any, to: str) -> Any:
    """The schema with its references pointing to its new place."""
    if isinstance(schema, list):
        return [_moved(one, to) for one in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {name: _moved(one, to) for name, one in schema.items()}
    ref = schema.get("$ref")
    return {**moved, "$ref": to + ref[1:]} if isinstance(ref, str) and ref.startswith("#") else moved


class ForcedCalls:
    """Turns the content of an answer, or of its chunks, into calls: the name once, then the arguments in pieces."""

    def __init__(self) -> None:
        self._calls: dict[int, _Call] = {}

    def event(self, event: dict[str, Any]) -> dict[str, Any]:
        """An answer or a chunk with the call instead of the content."""
        return {**event, "choices": [self._choice(one) for one in event.get("choices") or []]}

    def _choice(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        field = "message" if "message" in choice else "delta"
        said = dict(choice.get(field) or {})
        call = self._calls.setdefault(choice.get("index", 0), _Call())
        pieces = call.feed(said.get("content") or "")
        finish = choice.get("finish_reason")
        if finish is not None:
            pieces += call.finish()
        if "content" in said:
            said["content"] = None
        if pieces:
            said["tool_calls"] = _joined(pieces) if field == "message" else [_shape(piece, 0) for piece in pieces]
        made = call.named and finish == "stop"
        return {**choice, field: said, "finish_reason": "tool_calls" if made else finish}


class _Call:
    """One call, as its JSON arrives."""

    def __init__(self) -> None:
        self._text = ""
        self.named = self._begun = False

    def feed(self, piece: str) -> list[tuple[str, str]]:
        """(name, arguments) of each new part; the name is empty after the first."""
        self._text += piece
        pieces = []
        if not self.named and (begin := _BEGIN.match(self._text)):
            self.named, self._text = True, self._text[begin.end() :]
            pieces.append((json.loads(begin[1]), ""))
        if self.named:
            end = _MAY_BE_END.search(self._text)
            assert end is not None
            ready, self._text = self._text[: end.start()], self._text[end.start() :]
            ready = ready if self._begun else ready.lstrip()
            self._begun = self._begun or bool(ready)
            pieces += [("", ready)] if ready else []
        return pieces

    def finish(self) -> list[tuple[str, str]]:
        """What is left at the end, without the brace that closes the call itself."""
        rest = self._text.rstrip().removesuffix("}").rstrip() if self.named else ""
        self._text = ""
        return [("", rest)] if rest else []


def _shape(piece: tuple[str, str], number: int) -> dict[str, Any]:
    name, arguments = piece
    if not name:
        return {"index": number, "function": {"arguments": arguments}}
    function = {"name": name, "arguments": arguments}
    return {"index": number, "id": new_id("call_"), "type": "function", "function": function}


def _joined(pieces: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    name = "".join(one for one, _ in pieces)
    function = {"name": name, "arguments": "".join(arguments for _, arguments in pieces)}
    return [{"id": new_id("call_"), "type": "function", "function": function}]
