"""OpenAI's Responses API: `POST /v1/responses`.

https://platform.openai.com/docs/api-reference/responses

Nothing is stored: every request brings its whole input, as `store: false` asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from journeyman.serving.dialects.dialect import EventWriter, new_id
from journeyman.serving.dialects.items import read_items
from journeyman.serving.dialects.logprobs import logprob_options, with_alternatives
from journeyman.serving.dialects.pieces import choice_of, pieces_of, usage_of
from journeyman.serving.dialects.responses_answer import Head, ended, item_of
from journeyman.serving.dialects.responses_stream import ResponsesWriter
from journeyman.serving.errors import RequestError
from journeyman.serving.messages import MAX_TOOLS, check_last, read_function, text_of
from journeyman.serving.requests import Asked, check_answer_form, fields_of, options_of, sampling_checks
from journeyman.serving.tool_choice import apply_choice, openai_choice
from journeyman.serving.values import Check, known, objects, truth, whole

UNSUPPORTED = {
    "previous_response_id": "answers are not stored; send the whole input",
    "conversation": "conversations are not stored; send the whole input",
    "prompt": "prompts are not stored; send input and instructions",
    "background": "answers are not stored; wait for them or stream them",
}
_READ = ("model", "input", "instructions", "tools", "tool_choice", "text", "include", "store")
_LOGPROBS = "message.output_text.logprobs"


class Responses:
    """The Dialect."""

    name = "responses"
    path = "/v1/responses"

    def read(self, body: Any, roles: Sequence[str], context: int) -> Asked:
        role, given = fields_of(body, roles)
        ignored: list[str] = []
        unsupported = {name: why for name, why in UNSUPPORTED.items() if given.get(name)}
        options = options_of(given, _checks(context, ignored), unsupported, _READ, ignored)
        if "max_output_tokens" in options:
            options["max_tokens"] = options.pop("max_output_tokens")
        if given.get("store") is True:
            ignored.append("store")
        alternatives = options.get("top_logprobs", 0)
        options |= _logprobs(given, alternatives, ignored)
        messages, places = _turns(given, ignored)
        tools = _tools(given.get("tools", []), ignored)
        # A choice or a number of calls without tools is what agents send in their last turn, and means nothing.
        if "tool_choice" in given and (tools or given["tool_choice"] not in ("auto", "none")):
            choice = openai_choice(given["tool_choice"], "tool_choice", flat=True)
            tools, chosen = apply_choice(choice, tools, "tool_choice", ignored)
            options |= chosen
        if not tools:
            options.pop("parallel_tool_calls", None)
        options |= _form(given.get("text", {}), ignored)
        check_answer_form(options, tools, "text.format", "text.format.schema", "tools[{}].parameters")
        return Asked(role, messages, tools, options, ignored, given, places, "input", alternatives=alternatives)

    def whole(self, answer: dict[str, Any], asked: Asked) -> dict[str, Any]:
        choice = choice_of(with_alternatives(answer, asked.alternatives))
        done = choice.get("finish_reason") != "length"
        items = [item_of(piece, new_id, complete=done) for piece in pieces_of(choice)]
        return ended(Head.of(asked), items, choice.get("finish_reason"), usage_of(answer))

    def writer(self, asked: Asked) -> EventWriter:
        return ResponsesWriter(Head.of(asked), asked.alternatives)


def _checks(context: int, ignored: list[str]) -> dict[str, Check]:
    common = sampling_checks(context)
    length = common.pop("max_tokens")
    return {
        **common,
        "max_output_tokens": length,
        "parallel_tool_calls": truth,
        "top_logprobs": whole(0, 20),
        "truncation": partial(_truncation, ignored=ignored),
        "stream_options": partial(_stream_options, ignored=ignored),
    }


def _truncation(value: Any, param: str, ignored: list[str]) -> None:
    """`auto` lets the server leave out turns; this one refuses what is too long instead."""
    if value != "disabled":
        ignored.append(param)


def _stream_options(value: Any, param: str, ignored: list[str]) -> None:
    known(value, param, ("include_obfuscation",), ignored)


def _logprobs(given: Mapping[str, Any], alternatives: int, ignored: list[str]) -> dict[str, Any]:
    wanted = given.get("include", [])
    if not isinstance(wanted, list) or not all(isinstance(one, str) for one in wanted):
        raise RequestError(400, "include must be a list of texts", "include")
    ignored += [f"include {one}" for one in wanted if one != _LOGPROBS]
    if _LOGPROBS in wanted:
        return logprob_options(alternatives)
    if alternatives:
        raise RequestError(400, f"top_logprobs needs include: [{_LOGPROBS!r}]", "top_logprobs")
    return {}


def _turns(given: Mapping[str, Any], ignored: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    messages, places = read_items(given.get("input"), ignored)
    check_last(messages, "input")
    if given.get("instructions"):
        text = text_of(given["instructions"], "instructions", ignored, ("input_text", "text"))
        return [{"role": "system", "content": text}, *messages], ["instructions", *places]
    return messages, places


def _tools(value: Any, ignored: list[str]) -> list[dict[str, Any]]:
    """The functions; tools that OpenAI runs, or whose input is not JSON, are unknown to the models, and ignored."""
    tools = []
    for index, tool in enumerate(objects(value, "tools", MAX_TOOLS, least=0)):
        param = f"tools[{index}]"
        if tool.get("type") != "function":
            ignored.append(f"{param} ({tool.get('type')})")
            continue
        given = known(tool, param, ("type", "name", "description", "parameters", "strict"), ignored)
        given.pop("type", None)
        tools.append(read_function(given, param, ignored))
    return tools


def _form(value: Any, ignored: list[str]) -> dict[str, Any]:
    """The engine's option for the form of the text."""
    given = known(value, "text", ("format",), ignored)
    if "format" not in given:
        return {}
    names = ("type", "name", "schema", "strict", "description")
    form = known(given["format"], "text.format", names, ignored)
    kind = form.get("type")
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"response_format": {"type": kind}}
    if kind != "json_schema":
        raise RequestError(400, "text.format.type must be text, json_object or json_schema", "text.format.type")
    if "schema" not in form:
        raise RequestError(400, "text.format.schema is missing", "text.format.schema")
    return {"response_format": {"type": kind, "json_schema": {"schema": form["schema"]}}}
