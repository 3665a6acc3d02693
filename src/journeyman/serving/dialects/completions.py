"""OpenAI's older completions: `POST /v1/completions`.

https://platform.openai.com/docs/api-reference/completions

The roles were trained on conversations, so the prompt is what the user says: the role's system prompt and the chat
template are put around it, and it gets the same answer as in a chat completion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from journeyman.serving.copies import MAX_COPIES
from journeyman.serving.dialects.chat import ChatWriter, no_bias, read_stream_options, wants_usage
from journeyman.serving.dialects.dialect import EventWriter
from journeyman.serving.dialects.logprobs import logprob_options, with_alternatives
from journeyman.serving.errors import RequestError
from journeyman.serving.requests import Asked, check_needs, fields_of, options_of, sampling_checks, stops
from journeyman.serving.values import Check, whole, wrong

UNSUPPORTED = {"suffix": "the models continue texts, they do not fill gaps"}
_READ = ("model", "prompt")


class Completions:
    """The Dialect."""

    name = "completions"
    path = "/v1/completions"

    def read(self, body: Any, roles: Sequence[str], context: int) -> Asked:
        role, given = fields_of(body, roles)
        ignored: list[str] = []
        options = options_of(given, _checks(context, ignored), UNSUPPORTED, _READ, ignored)
        copies = options.pop("n", 1)
        if options.pop("best_of", copies) != copies:
            raise RequestError(400, "best_of must be n: answers are not chosen", "best_of", "unsupported_parameter")
        check_needs(options, {"stream_options": "stream"})
        alternatives = options.get("logprobs", 0)
        if "logprobs" in options:
            options |= logprob_options(alternatives)
        turn = {"role": "user", "content": _prompt(given.get("prompt"))}
        return Asked(role, [turn], [], options, ignored, given, ("prompt",), "prompt", copies, alternatives)

    def whole(self, answer: dict[str, Any], asked: Asked) -> dict[str, Any]:
        return _completion(with_alternatives(answer, asked.alternatives))

    def writer(self, asked: Asked) -> EventWriter:
        return CompletionsWriter(usage=wants_usage(asked), alternatives=asked.alternatives)


class CompletionsWriter(ChatWriter):
    """Chunks of a chat completion as chunks of a completion."""

    def __init__(self, *, usage: bool = False, alternatives: int = 0) -> None:
        super().__init__(usage=usage, alternatives=alternatives)
        self._lengths: dict[int, int] = {}

    def form(self, event: dict[str, Any]) -> dict[str, Any]:
        return _completion(event, self._lengths)


def _completion(answer: Mapping[str, Any], lengths: dict[int, int] | None = None) -> dict[str, Any]:
    """A chat completion or a chunk of one as a completion.

    Args:
        lengths: choice → characters in the chunks so far.
    """
    lengths = {} if lengths is None else lengths
    choices = [_choice(one, lengths) for one in answer.get("choices", [])]
    name = str(answer.get("id", "")).replace("chatcmpl-", "cmpl-", 1)
    return {**answer, "id": name, "object": "text_completion", "choices": choices}


def _choice(choice: Mapping[str, Any], lengths: dict[int, int]) -> dict[str, Any]:
    said = choice.get("message") or choice.get("delta") or {}
    number = choice.get("index", 0)
    made = {
        "index": number,
        "text": said.get("content") or "",
        "logprobs": _logprobs(choice.get("logprobs"), lengths.get(number, 0)),
        "finish_reason": choice.get("finish_reason"),
    }
    lengths[number] = lengths.get(number, 0) + len(made["text"])
    return {**made, "reasoning_content": said["reasoning_content"]} if said.get("reasoning_content") else made


def _logprobs(given: Any, offset: int) -> dict[str, Any] | None:
    """The log probabilities in this API's form; offsets count the characters of the model's own tokens."""
    tokens = (given or {}).get("content")
    if not tokens:
        return None
    offsets = []
    for one in tokens:
        offsets.append(offset)
        offset += len(one["token"])
    return {
        "tokens": [one["token"] for one in tokens],
        "token_logprobs": [one["logprob"] for one in tokens],
        "top_logprobs": [{top["token"]: top["logprob"] for top in one.get("top_logprobs", [])} for one in tokens],
        "text_offset": offsets,
    }


def _checks(context: int, ignored: list[str]) -> dict[str, Check]:
    return {
        **sampling_checks(context),
        "stop": stops,
        "stream_options": read_stream_options(ignored),
        "logprobs": whole(0, 20),
        "echo": _no_echo,
        "n": whole(1, MAX_COPIES),
        "best_of": whole(1, MAX_COPIES),
        "logit_bias": no_bias,
    }


def _prompt(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    if isinstance(value, list):
        raise RequestError(
            400, "prompt must be one text: send a request for each prompt, and text instead of tokens", "prompt",
            "unsupported_parameter",
        )  # fmt: skip
    if not isinstance(value, str):
        raise wrong("prompt", "text", value)
    return value


def _no_echo(value: Any, param: str) -> None:
    if value is not False:
        raise RequestError(400, f"{param} is not supported", param, "unsupported_parameter")
