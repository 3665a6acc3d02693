"""Turns a client's JSON into a request for the engine: every field is validated and used, reported as ignored, or
refused.

Nothing is dropped silently. A null field counts as absent, as OpenAI's clients intend it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from journeyman.foreign import plain
from journeyman.serving.errors import RequestError
from journeyman.serving.messages import read_messages, read_tools
from journeyman.serving.schemas import check_schemas
from journeyman.serving.values import Check, number, only, text, truth, whole, wrong

IGNORED = (
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "reasoning_effort", "verbosity",
)  # fmt: skip
"""Fields that do not affect the answers of a model served here; the response lists those that were sent."""
UNSUPPORTED = {
    "functions": "use tools instead",
    "function_call": "use tool_choice instead",
    "audio": "answers are text",
    "prediction": "predicted outputs are not available",
    "web_search_options": "the server does not access the network",
}
MAX_STOPS = 16


@dataclass
class Asked:
    """A valid request.

    Attributes:
        options: fields that are passed to the engine unchanged.
        ignored: names of fields that were sent and have no effect.
    """

    role: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    options: dict[str, Any]
    ignored: list[str] = field(default_factory=list)

    @property
    def streamed(self) -> bool:
        return bool(self.options.get("stream"))


def read_request(body: Any, roles: Sequence[str], context: int) -> Asked:
    """Validates a request's JSON.

    Args:
        context: the engine's limit for the tokens of prompt and answer; no answer is longer.

    Raises:
        RequestError: 404 for a role that is not served, else 400; it names the field.
    """
    if not isinstance(body, dict):
        raise RequestError(400, "the body must be a JSON object")
    role = body.get("model")
    if not isinstance(role, str):
        raise wrong("model", "text, the name of a role", role)
    if role not in roles:
        known = plain(", ".join(roles), 200)
        message = f"model {plain(role, 80)!r} is not served here; roles: {known}"
        raise RequestError(404, message, "model", "model_not_found")
    given = {name: value for name, value in body.items() if value is not None}
    ignored = [name for name in IGNORED if name in given]
    messages = read_messages(given.get("messages"), ignored)
    tools = read_tools(given.get("tools", []), ignored)
    options = _options(given, context)
    _check_together(options, tools)
    check_schemas([*_schema_of(options), *_schemas_of(tools)])
    return Asked(role, messages, tools, options, ignored)


def _options(given: Mapping[str, Any], context: int) -> dict[str, Any]:
    length = whole(1, context)
    checks: dict[str, Check] = {
        "temperature": number(0, 2), "top_p": number(0, 1), "presence_penalty": number(-2, 2),
        "frequency_penalty": number(-2, 2), "max_tokens": length, "max_completion_tokens": length, "stop": _stop,
        "seed": whole(-(1 << 63), (1 << 63) - 1), "stream": truth, "stream_options": _stream_options,
        "response_format": _response_format, "tool_choice": _tool_choice, "parallel_tool_calls": truth,
        "logprobs": truth, "top_logprobs": whole(0, 20),
    }  # fmt: skip
    none: dict[str, Check] = {"n": _one_answer, "logit_bias": _no_bias, "modalities": _text_only}
    options = {}
    for name, value in given.items():
        if name in checks:
            options[name] = checks[name](value, name)
        elif name in none:
            none[name](value, name)
        elif name in UNSUPPORTED:
            raise RequestError(400, f"{name} is not supported: {UNSUPPORTED[name]}", name, "unsupported_parameter")
        elif name not in ("model", "messages", "tools", *IGNORED):
            shown = plain(name, 80)
            raise RequestError(400, f"unknown field {shown!r}", shown, "unknown_parameter")
    if options.get("response_format") == {"type": "text"}:
        del options["response_format"]
    return options


def _check_together(options: Mapping[str, Any], tools: Sequence[Any]) -> None:
    for name, needed in (("top_logprobs", "logprobs"), ("stream_options", "stream")):
        if name in options and not options.get(needed):
            raise RequestError(400, f"{name} needs {needed}: true", name)
    for name in ("tool_choice", "parallel_tool_calls"):
        if name in options and not tools:
            raise RequestError(400, f"{name} needs tools", name)
    if "max_tokens" in options and "max_completion_tokens" in options:
        raise RequestError(
            400, "max_tokens and max_completion_tokens mean the same: send only one of them", "max_tokens"
        )
    if tools and "response_format" in options:
        raise RequestError(400, "response_format and tools cannot be used together", "response_format")


def _stop(value: Any, param: str) -> Any:
    if isinstance(value, str):
        return text(1000)(value, param)
    if not isinstance(value, list) or len(value) > MAX_STOPS:
        raise RequestError(400, f"{param} must be text or a list of at most {MAX_STOPS} texts", param)
    return [text(1000)(one, f"{param}[{index}]") for index, one in enumerate(value)]


def _stream_options(value: Any, param: str) -> Any:
    for name, inner in only(value, param, ("include_usage", "include_obfuscation")).items():
        truth(inner, f"{param}.{name}")
    return {"include_usage": bool(value.get("include_usage"))}


def _response_format(value: Any, param: str) -> Any:
    kind = only(value, param, ("type", "json_schema")).get("type")
    if kind not in ("text", "json_object", "json_schema"):
        raise RequestError(400, f"{param}.type must be text, json_object or json_schema", f"{param}.type")
    if kind != "json_schema":
        return {"type": kind}
    inner = only(value.get("json_schema"), f"{param}.json_schema", ("name", "schema", "strict", "description"))
    if "schema" not in inner:
        raise RequestError(400, f"{param}.json_schema.schema is missing", f"{param}.json_schema.schema")
    return {"type": kind, "json_schema": {"schema": inner["schema"]}}


def _tool_choice(value: Any, param: str) -> Any:
    if value not in ("auto", "none"):
        raise RequestError(
            400, f"{param} must be auto or none: the engine cannot force a tool call", param,
            "unsupported_parameter",
        )  # fmt: skip
    return value


def _one_answer(value: Any, param: str) -> None:
    if value != 1 or isinstance(value, bool):
        raise RequestError(400, f"{param} must be 1: one answer per request", param, "unsupported_parameter")


def _no_bias(value: Any, param: str) -> None:
    if value != {}:
        raise RequestError(400, f"{param} is not supported", param, "unsupported_parameter")


def _text_only(value: Any, param: str) -> None:
    if value != ["text"]:
        raise RequestError(400, f'{param} must be ["text"]', param, "unsupported_parameter")


def _schema_of(options: Mapping[str, Any]) -> list[tuple[str, Any]]:
    wanted = options.get("response_format", {})
    return [("response_format.json_schema.schema", wanted["json_schema"]["schema"])] if "json_schema" in wanted else []


def _schemas_of(tools: Sequence[Mapping[str, Any]]) -> list[tuple[str, Any]]:
    schemas = [(f"tools[{index}].function.parameters", tool["function"]) for index, tool in enumerate(tools)]
    return [(param, function["parameters"]) for param, function in schemas if function.get("parameters") is not None]
