"""Anthropic's messages: `POST /v1/messages` and `POST /v1/messages/count_tokens`.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from journeyman.serving.dialects.blocks import read_turns
from journeyman.serving.dialects.dialect import EventWriter, new_id
from journeyman.serving.dialects.messages_answer import MessagesWriter, block_of, stop_of, usage_object
from journeyman.serving.dialects.pieces import choice_of, pieces_of, usage_of
from journeyman.serving.errors import RequestError
from journeyman.serving.messages import MAX_TOOLS, check_last, read_function, text_of
from journeyman.serving.requests import Asked, check_answer_form, fields_of, options_of, stops
from journeyman.serving.tool_choice import ToolChoice, apply_choice
from journeyman.serving.values import Check, known, number, objects, truth, whole, wrong

UNSUPPORTED = {"mcp_servers": "the server does not access the network", "container": "the server runs no code"}
_READ = ("model", "messages", "system", "tools", "tool_choice", "output_format", "output_config")
_MODES: Mapping[str, Any] = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}


class Messages:
    """The Dialect."""

    name = "messages"
    path = "/v1/messages"

    def read(self, body: Any, roles: Sequence[str], context: int) -> Asked:
        return read_request(body, roles, context)

    def whole(self, answer: dict[str, Any], asked: Asked) -> dict[str, Any]:
        choice = choice_of(answer)
        return {
            "id": new_id("msg_"),
            "type": "message",
            "role": "assistant",
            "model": asked.role,
            "content": [block_of(piece) for piece in pieces_of(choice)],
            **stop_of(choice.get("finish_reason"), answer),
            "usage": usage_object(usage_of(answer)),
        }

    def writer(self, asked: Asked) -> EventWriter:
        return MessagesWriter(asked.role)


class CountTokens(Messages):
    """Reads what is to be counted: a message's request, in which max_tokens may be missing."""

    name = "count_tokens"
    path = "/v1/messages/count_tokens"

    def read(self, body: Any, roles: Sequence[str], context: int) -> Asked:
        return read_request({"max_tokens": 1, **body} if isinstance(body, dict) else body, roles, context)


def read_request(body: Any, roles: Sequence[str], context: int) -> Asked:
    """Validates the JSON of a request for a message; see Dialect.read."""
    role, given = fields_of(body, roles)
    ignored: list[str] = []
    options = options_of(given, _checks(context, ignored), _unsupported(given), _READ, ignored)
    if "max_tokens" not in options:
        raise RequestError(400, "max_tokens is missing", "max_tokens")
    if stop := options.pop("stop_sequences", None):
        options |= {"stop": stop, "verbose": True}  # the engine then says which of them ended the answer
    system, messages, places = _system(given, ignored), *read_turns(given.get("messages"), ignored)
    check_last(messages, "messages")
    if system:
        messages, places = [{"role": "system", "content": system}, *messages], ["system", *places]
    tools = _tools(given.get("tools", []), ignored)
    if "tool_choice" in given:
        choice, options["parallel_tool_calls"] = _choice(given["tool_choice"], ignored)
        tools, chosen = apply_choice(choice, tools, "tool_choice", ignored)
        options |= chosen
    field, form = _form(given, ignored)
    options |= form
    check_answer_form(options, tools, field, f"{field}.schema", "tools[{}].input_schema")
    return Asked(role, messages, tools, options, ignored, given, places)


def _checks(context: int, ignored: list[str]) -> dict[str, Check]:
    return {
        "max_tokens": partial(_capped, context=context, ignored=ignored),
        "temperature": number(0, 1),
        "top_p": number(0, 1),
        "top_k": whole(0, 1 << 20),
        "stop_sequences": _stops,
        "stream": truth,
    }


def _unsupported(given: Mapping[str, Any]) -> dict[str, str]:
    """Fields that cannot be served, if they ask for anything."""
    return {name: why for name, why in UNSUPPORTED.items() if given.get(name)}


def _capped(value: Any, param: str, *, context: int, ignored: list[str]) -> int:
    """The limit of the answer. Clients must send one and use that of the model that they know, so more than the context
    is no error; `ignored` says so."""
    limit = int(whole(1, 1 << 31)(value, param))
    if limit > context:
        ignored.append(f"max_tokens over {context}")
    return min(limit, context)


def _stops(value: Any, param: str) -> Any:
    if not isinstance(value, list):
        raise wrong(param, "a list of texts", value)
    return stops(value, param)


def _system(given: Mapping[str, Any], ignored: list[str]) -> str:
    return text_of(given["system"], "system", ignored, ("text",)) if given.get("system") else ""


def _tools(value: Any, ignored: list[str]) -> list[dict[str, Any]]:
    """The client's own tools; those that Anthropic defines or runs are unknown to the models, and ignored."""
    tools = []
    for index, tool in enumerate(objects(value, "tools", MAX_TOOLS, least=0)):
        param = f"tools[{index}]"
        if tool.get("type") not in (None, "custom"):
            ignored.append(f"{param} ({tool['type']})")
            continue
        given = known(tool, param, ("type", "name", "description", "input_schema", "strict"), ignored)
        given.pop("type", None)
        if "input_schema" not in given:
            raise RequestError(400, f"{param}.input_schema is missing", f"{param}.input_schema")
        given["parameters"] = given.pop("input_schema")
        tools.append(read_function(given, param, ignored))
    return tools


def _choice(value: Any, ignored: list[str]) -> tuple[ToolChoice, bool]:
    """The choice, and whether several calls are allowed at once."""
    given = known(value, "tool_choice", ("type", "name", "disable_parallel_tool_use"), ignored)
    mode = _MODES.get(str(given.get("type")))
    if mode is None:
        raise RequestError(400, f"tool_choice.type must be one of {', '.join(_MODES)}", "tool_choice.type")
    single = truth(given.get("disable_parallel_tool_use", False), "tool_choice.disable_parallel_tool_use")
    if given["type"] != "tool":
        return ToolChoice(mode), not single
    if not isinstance(given.get("name"), str):
        raise wrong("tool_choice.name", "text", given.get("name"))
    return ToolChoice(mode, (given["name"],)), not single


def _form(given: Mapping[str, Any], ignored: list[str]) -> tuple[str, dict[str, Any]]:
    """The field that asks for JSON, and the engine's option for it."""
    config = known(given.get("output_config", {}), "output_config", ("format",), ignored)
    field = "output_config.format" if "format" in config else "output_format"
    value = config.get("format", given.get("output_format"))
    if value is None:
        return field, {}
    form = known(value, field, ("type", "schema"), ignored)
    if form.get("type") != "json_schema":
        raise RequestError(400, f"{field}.type must be json_schema", f"{field}.type")
    if "schema" not in form:
        raise RequestError(400, f"{field}.schema is missing", f"{field}.schema")
    return field, {"response_format": {"type": "json_schema", "json_schema": {"schema": form["schema"]}}}
