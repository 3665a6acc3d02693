"""What a row counts in an answer, in any of the dialects: tokens, tool calls, the finish reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from journeyman.gateway.bodies import Body
from journeyman.sources.fields import mapping


def tokens_of(usage: Mapping[str, Any]) -> dict[str, int]:
    def count(*names: str) -> int:
        return next((value for name in names if isinstance(value := usage.get(name), int) and value > 0), 0)

    return {
        "prompt": count("prompt_tokens", "input_tokens"),
        "answer": count("completion_tokens", "output_tokens"),
    }


def finish_of(answer: Mapping[str, Any]) -> str | None:
    choices = answer.get("choices")
    choice = mapping(choices[0]) if isinstance(choices, list) and choices else {}
    reason = choice.get("finish_reason") or answer.get("stop_reason")
    if answer.get("object") == "response":
        reason = mapping(answer.get("incomplete_details")).get("reason") or answer.get("status")
    return reason if isinstance(reason, str) else None


def calls_in(answer: Mapping[str, Any]) -> int:
    parts = [part for name in ("content", "output") if isinstance(part := answer.get(name), list)]
    count = sum(mapping(one).get("type") in ("tool_use", "function_call") for part in parts for one in part)
    choices = answer.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        calls = mapping(mapping(choice).get("message")).get("tool_calls")
        count += len(calls) if isinstance(calls, list) else 0
    return count


def whole_answer(response: Body) -> Any:
    """The answer; of a stream also what is not part of one."""
    stream = response.stream
    if stream is None or not (stream.other or stream.errors):
        return response.value
    beside = {"events": stream.other} if stream.other else {}
    error = {"stream_errors": stream.errors} if stream.errors else {}
    return {**mapping(response.value), **beside, **error}


def stream_errors(response: Body) -> list[str]:
    """The errors that came in a stream."""
    errors: Sequence[Any] = response.stream.errors if response.stream else ()
    return [str(mapping(one).get("message") or one) for one in errors]
