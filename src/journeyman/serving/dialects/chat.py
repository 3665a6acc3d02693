"""OpenAI's chat completions: `POST /v1/chat/completions`.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from journeyman.serving.copies import MAX_COPIES
from journeyman.serving.dialects.dialect import EventWriter, data_event
from journeyman.serving.dialects.logprobs import logprob_options, with_alternatives
from journeyman.serving.errors import RequestError, error_object
from journeyman.serving.messages import read_messages, read_tools
from journeyman.serving.requests import (
    Asked,
    check_answer_form,
    check_needs,
    fields_of,
    options_of,
    sampling_checks,
    stops,
)  # fmt: skip
from journeyman.serving.tool_choice import apply_choice, openai_choice
from journeyman.serving.values import Check, known, truth, whole

UNSUPPORTED = {
    "functions": "use tools instead",
    "function_call": "use tool_choice instead",
    "audio": "answers are text",
    "prediction": "predicted outputs are not available",
    "web_search_options": "the server does not access the network",
}
_READ = ("model", "messages", "tools", "tool_choice")
FIELDS = frozenset({
    *_READ, "temperature", "top_p", "stream", "seed", "presence_penalty", "frequency_penalty", "max_tokens",
    "max_completion_tokens", "stop", "stream_options", "response_format", "parallel_tool_calls", "logprobs",
    "top_logprobs", "n",
})  # fmt: skip
"""Fields that can affect an answer."""
_DONE = b"data: [DONE]\n\n"


def read_request(body: Any, roles: Sequence[str], context: int) -> Asked:
    """Validates the JSON of a chat completion; see Dialect.read."""
    role, given = fields_of(body, roles)
    ignored: list[str] = []
    options = options_of(given, _checks(context, ignored), UNSUPPORTED, _READ, ignored)
    copies = options.pop("n", 1)
    messages = read_messages(given.get("messages"), ignored)
    tools = read_tools(given.get("tools", []), ignored)
    if "tool_choice" in given:
        choice = openai_choice(given["tool_choice"], "tool_choice", flat=False)
        tools, chosen = apply_choice(choice, tools, "tool_choice", ignored)
        options |= chosen
    _check_together(options, tools)
    check_answer_form(
        options, tools, "response_format", "response_format.json_schema.schema", "tools[{}].function.parameters"
    )
    alternatives = options.get("top_logprobs", 0)
    if options.get("logprobs"):
        options |= logprob_options(alternatives)
    return Asked(role, messages, tools, options, ignored, given, copies=copies, alternatives=alternatives)


class ChatCompletions:
    """The Dialect that the engine speaks itself."""

    name = "chat"
    path = "/v1/chat/completions"
    read = staticmethod(read_request)

    def whole(self, answer: dict[str, Any], asked: Asked) -> dict[str, Any]:
        return with_alternatives(answer, asked.alternatives)

    def writer(self, asked: Asked) -> EventWriter:
        return ChatWriter(usage=wants_usage(asked), alternatives=asked.alternatives)


def wants_usage(asked: Asked) -> bool:
    """Whether the client wants the token counts at the end of a stream."""
    return bool(asked.options.get("stream_options", {}).get("include_usage"))


class ChatWriter:
    """Sends every chunk on, but the one with the usage only to clients that asked for it."""

    def __init__(self, *, usage: bool = False, alternatives: int = 0) -> None:
        self._usage, self._alternatives = usage, alternatives

    def chunk(self, event: dict[str, Any]) -> Iterator[bytes]:
        if event.get("choices") or self._usage or not event.get("usage"):
            yield data_event(self.form(with_alternatives(event, self._alternatives)))

    def form(self, event: dict[str, Any]) -> dict[str, Any]:
        """A chunk in the form of the API."""
        return event

    def end(self) -> Iterator[bytes]:
        yield _DONE

    def failed(self, message: str) -> Iterator[bytes]:
        yield data_event(error_object(message))


def _checks(context: int, ignored: list[str]) -> dict[str, Check]:
    return {
        **sampling_checks(context),
        "max_completion_tokens": whole(1, context),
        "stop": stops,
        "stream_options": read_stream_options(ignored),
        "response_format": partial(_response_format, ignored=ignored),
        "parallel_tool_calls": truth,
        "logprobs": truth,
        "top_logprobs": whole(0, 20),
        "n": whole(1, MAX_COPIES),
        "logit_bias": no_bias,
        "modalities": _text_only,
    }


def _check_together(options: dict[str, Any], tools: Sequence[Any]) -> None:
    check_needs(options, {"top_logprobs": "logprobs", "stream_options": "stream"})
    if "parallel_tool_calls" in options and not tools:
        raise RequestError(400, "parallel_tool_calls needs tools", "parallel_tool_calls")
    if "max_tokens" in options and "max_completion_tokens" in options:
        raise RequestError(
            400, "max_tokens and max_completion_tokens mean the same: send only one of them", "max_tokens"
        )


def read_stream_options(ignored: list[str]) -> Check:
    """The check of `stream_options`."""

    def check(value: Any, param: str) -> dict[str, bool]:
        given = known(value, param, ("include_usage", "include_obfuscation"), ignored)
        for name, inner in given.items():
            truth(inner, f"{param}.{name}")
        return {"include_usage": given.get("include_usage", False)}

    return check


def _response_format(value: Any, param: str, ignored: list[str]) -> Any:
    given = known(value, param, ("type", "json_schema"), ignored)
    kind = given.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        raise RequestError(400, f"{param}.type must be text, json_object or json_schema", f"{param}.type")
    if kind != "json_schema":
        return None if kind == "text" else {"type": kind}
    names = ("name", "schema", "strict", "description")
    inner = known(given.get("json_schema"), f"{param}.json_schema", names, ignored)
    if "schema" not in inner:
        raise RequestError(400, f"{param}.json_schema.schema is missing", f"{param}.json_schema.schema")
    return {"type": kind, "json_schema": {"schema": inner["schema"]}}


def no_bias(value: Any, param: str) -> None:
    """The check of `logit_bias`."""
    if value != {}:
        raise RequestError(400, f"{param} is not supported", param, "unsupported_parameter")


def _text_only(value: Any, param: str) -> None:
    if value != ["text"]:
        raise RequestError(400, f'{param} must be ["text"]', param, "unsupported_parameter")
