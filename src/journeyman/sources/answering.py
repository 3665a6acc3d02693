"""Converts the output of a traced call, in any dialect, to the fields of each answer.

Dialects: plain text, a turn, lists of turns, choices, a Responses answer ({output: [items]}), Gemini's candidates,
Anthropic's message, LangChain's generations, the Vercel AI SDK's {text, toolCalls}.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import sources as why
from journeyman.records import Interaction, Message
from journeyman.sources.asking import Asked, system_turns
from journeyman.sources.events import are_events, events_apart
from journeyman.sources.fields import NotAnInteraction, decoded, finish_reason, first, kind, mapping, tools_of, without
from journeyman.sources.langchain import as_turn, finish_of, is_message
from journeyman.sources.openai_chat import answer_fields, without_prefill
from journeyman.sources.openai_chat import answers as openai_answers
from journeyman.sources.status import Status
from journeyman.sources.turns import LOST, asked, chat_message, turns_of

_TURN = {
    "content", "role", "name", "refusal", "tool_calls", "toolCalls", "function_call", "additional_kwargs", "id", "type",
    "response_metadata", "usage_metadata", "invalid_tool_calls", "reasoning_content", "reasoning", "finish_reason",
    "annotations", "audio", "logprobs", "stop_reason", "stop_sequence", "model", "usage", "parts", "thinking",
    "finishReason", "example", "provider_specific_fields", "container", "index",
}  # fmt: skip
_SURE = ("role", "tool_calls", "toolCalls", "parts", "additional_kwargs", "function_call")
_ITEMS = ("function_call", "reasoning", "message")
_TEXTS = ("text", "output", "response", "completion", "combined_chunk_content")
_ENDS = ("finish_reason", "finishReason", "stop_reason", "stopReason")
Answer = dict[str, Any]
"""Fields of an Interaction; `before` holds turns of the output that come before its answer."""


def interactions_of(base: Mapping[str, Any], call: Asked, answers: Sequence[Answer], status: Status
                    ) -> Iterator[Interaction]:  # fmt: skip
    """Yields one interaction for each answer, with the call's logged status."""
    for given in answers or [{"output": None}]:
        before, own = _before(call.messages, given.get("before", [])), without_before(given)
        messages, prefill = without_prefill(_unanswered(before, own))
        said = text if (text := own.get("output")) else ""
        if prefill and said and not said.startswith(prefill):
            own["output"] = prefill + said
        answered = own.get("output") is not None or bool(own.get("output_calls"))
        claims = status.or_answered(answered).fields()
        claims["notes"] = [*claims["notes"], *own.pop("notes", [])]
        extra = {**base.get("extra", {}), **own.pop("extra", {})}
        yield Interaction.model_validate({**base, "messages": messages, **claims, **own, "extra": extra})


def _unanswered(messages: list[Message], own: Answer) -> list[Message]:
    """The input without the answer's own calls: a client that appends to its list changes the traced input."""
    last = messages[-1]
    calls = [(one.name, one.arguments) for one in own.get("output_calls", [])]
    same = calls and last.role == "assistant" and [(one.name, one.arguments) for one in last.tool_calls] == calls
    return messages[:-1] if same else messages


def without_before(answer: Answer) -> Answer:
    return {key: value for key, value in answer.items() if key != "before"}


def _before(messages: list[Message], more: list[Message]) -> list[Message]:
    """The input and the output's earlier turns; an output that repeats the input continues it."""
    known = [(one.role, one.content) for one in messages]
    repeated = [(one.role, one.content) for one in more[: len(known)]] == known
    return asked([*messages, *(more[len(known) :] if repeated else more)], "the output")


def with_echo(call: Asked, output: Any, place: str) -> Asked:
    """The input with the parts of the request that a Responses answer repeats: instructions and tools.

    Raises:
        NotAnInteraction: it continues an earlier response, which is not in this row.
    """
    response = mapping(output)
    if response.get("object") != "response":
        return call
    if response.get("previous_response_id"):
        raise NotAnInteraction(why.EarlierResponse(f"{place}.previous_response_id"))
    own = system_turns(response.get("instructions"), place)
    known = any(message.role == "system" for message in call.messages)
    messages = call.messages if known else [*own, *call.messages]
    return Asked(messages, call.tools or tools_of(response.get("tools")), call.settings)


def answers_of(value: Any, place: str) -> list[Answer]:
    """The answers in a call's output; none if it is empty.

    Raises:
        NotAnInteraction: it is not an answer in a known form.
    """
    opened = decoded(value)
    if opened in (None, "", [], {}):
        return []
    if isinstance(opened, str):
        return [_said(opened, place)]
    if isinstance(opened, list):
        return _listed(opened, place)
    if isinstance(opened, Mapping):
        found = _object(opened, place)
        if found is not None:
            return found
        if isinstance(value, str):  # an answer that is itself JSON
            return [{"output": value}]
        named = ", ".join(repr(plain(str(key), 30)) for key in list(opened)[:6])
        raise NotAnInteraction(why.UnknownFields(place, named, "an answer"))
    raise NotAnInteraction(why.WrongType(place, kind(opened), "text or a message"))


def _object(value: Mapping[str, Any], place: str) -> list[Answer] | None:
    """The answers in an object of a known shape; None if the shape is unknown."""
    if isinstance(value.get("choices"), list) and value["choices"]:
        return [_choice(one, f"{place}.choices[{index}]") for index, one in enumerate(value["choices"])]
    if value.get("object") == "response" or _is_items(value.get("output")):
        return [answer_fields(*one) for one in openai_answers({**value, "object": "response"})]
    if isinstance(value.get("candidates"), list) and value["candidates"]:
        return [_candidate(one, f"{place}.candidates[{index}]") for index, one in enumerate(value["candidates"])]
    if isinstance(decoded(value.get("generations")), list):
        return _generations(decoded(value["generations"]), f"{place}.generations")
    if _is_turn(value):
        return [_turn(value, place)]
    for name in ("message", "messages", "output", "response", "completion", "result"):
        inner = decoded(value.get(name))
        if isinstance(inner, Mapping | list) and inner:
            return [_ended(one, value) for one in answers_of(inner, f"{place}.{name}")]
    text = first(*(value.get(name) for name in _TEXTS))
    return [_ended(_said(text, place), value)] if isinstance(text, str) else None


def _said(text: str, place: str) -> Answer:
    """A text as the answer; logs write "None" for an answer that they could not represent."""
    if text.strip() in LOST:
        raise NotAnInteraction(why.AnswerLost(place, text.strip()))
    return {"output": text}


def _is_turn(value: Mapping[str, Any]) -> bool:
    """Whether the object is a turn, and not a JSON answer that happens to have a field called content."""
    if is_message(value) or any(value.get(name) for name in _SURE):
        return True
    return "content" in value and value.keys() <= _TURN


def _is_items(value: Any) -> bool:
    items = decoded(value)
    return isinstance(items, list) and any(mapping(one).get("type") in _ITEMS for one in items)


def _choice(value: Any, place: str) -> Answer:
    choice = mapping(value)
    message = first(choice.get("message"), choice.get("delta"), {"content": choice.get("text")})
    return _ended(_turn({"role": "assistant", **mapping(as_turn(decoded(message)))}, f"{place}.message"), choice)


def _candidate(value: Any, place: str) -> Answer:
    candidate = mapping(value)
    content = mapping(candidate.get("content"))
    return _ended(_turn({"role": "model", "parts": [], **content}, f"{place}.content"), candidate)


def _generations(value: list[Any], place: str) -> list[Answer]:
    """LangChain's generations: for each prompt of a batch, a list of its answers."""
    if value and all(isinstance(one, list) for one in value):
        if len(value) > 1:
            raise NotAnInteraction(why.SeveralInOne(place, len(value), "answers to prompts of one batch"))
        return _generations(value[0], place)
    return [_generation(mapping(one), f"{place}[{index}]") for index, one in enumerate(value)]


def _generation(value: Mapping[str, Any], place: str) -> Answer:
    info = mapping(first(value.get("generation_info"), value.get("generationInfo")))
    message = mapping(value.get("message"))
    text = value.get("text")
    given: Answer = _said(text, place) if isinstance(text, str) and text else {"output": None}
    answer = _turn(message, f"{place}.message") if message else given
    return _ended(answer, info)


def _turn(value: Mapping[str, Any], place: str) -> Answer:
    turn = {"role": "assistant", **mapping(as_turn(value))}
    calls = first(turn.get("tool_calls"), turn.get("toolCalls"))
    shaped = {**without(turn, *_ENDS, "tool_calls", "toolCalls"), "role": turn["role"], "tool_calls": calls}
    said = first(turn.get("content"), None if "parts" in turn else turn.get("text"))
    if said is not None:
        shaped["content"] = said
    message = chat_message(shaped, place)
    if message.role != "assistant":
        raise NotAnInteraction(why.NotAnAnswer(place, f"a turn of role {plain(message.role, 40)!r}"))
    answer = answer_fields(message, None)
    beside = without(message.extra, "refusal", "reasoning_content", "reasoning")
    answer |= {"extra": {"answer": beside}} if beside else {}
    return _ended(_ended(answer, turn), {"finish_reason": finish_of(value)})


def _ended(answer: Answer, value: Mapping[str, Any]) -> Answer:
    """The answer with the finish reason of the object around it."""
    logged = first(*(value.get(name) for name in _ENDS))
    if answer.get("finish_reason") is None and logged is not None:
        return {**answer, "finish_reason": finish_reason(logged)}
    return answer


def _listed(values: list[Any], place: str) -> list[Answer]:
    if are_events(values):
        values = events_apart([mapping(one) for one in values])[1] or values
    if all(isinstance(one, list) for one in values):
        return _generations(values, place)
    if all(isinstance(one, Mapping) and isinstance(one.get("message"), Mapping) for one in values):
        if any("generation_info" in one or "text" in one for one in values):
            return _generations(values, place)
        return [_choice(one, f"{place}[{index}]") for index, one in enumerate(values)]
    if any(isinstance(one, Mapping) and one.get("type") in _ITEMS and "parts" not in one for one in values):
        return [answer_fields(*one) for one in openai_answers({"object": "response", "output": values})]
    if len(values) == 1 and isinstance(values[0], str):
        return [_said(values[0], place)]
    if all(isinstance(one, Mapping) and "role" not in one and "type" in one and not is_message(one) for one in values):
        return [_turn({"role": "assistant", "content": values}, place)]
    return _last(values, place)


def _last(values: list[Any], place: str) -> list[Answer]:
    """Several answers of the assistant, or a dialogue that ends with the answer."""
    turns = [as_turn(decoded(one)) for one in values]
    if not all(isinstance(one, Mapping) for one in turns):
        raise NotAnInteraction(why.WrongType(place, f"a list of {kind(values[0])} and more", "text or messages"))
    roles = [str(one.get("role", "assistant")).lower() for one in turns]
    if all(role in ("assistant", "model", "ai") for role in roles):
        return [_with_finish(one, turns[index], f"{place}[{index}]") for index, one in enumerate(values)]
    before = [turn for index, one in enumerate(turns[:-1]) for turn in turns_of(one, f"{place}[{index}]")]
    return [{**_with_finish(values[-1], turns[-1], f"{place}[{len(turns) - 1}]"), "before": before}]


def _with_finish(value: Any, turn: Mapping[str, Any], place: str) -> Answer:
    return _ended(_turn(turn, place), {"finish_reason": finish_of(decoded(value))})
