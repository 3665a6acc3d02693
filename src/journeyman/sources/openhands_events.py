"""Converts events of OpenHands, of older and newer versions, to a conversation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import notes as note
from journeyman.reasons import sources as why
from journeyman.records import Interaction, Message, Note
from journeyman.sources.blocks import blocks_of
from journeyman.sources.fields import (
    NotAnInteraction,
    between_ms,
    decoded,
    finish_reason,
    iso_time,
    mapping,
    text_or_none,
    tool_call,
    tools_of,
)
from journeyman.sources.history import answered
from journeyman.sources.place import Place
from journeyman.sources.sessions import Line
from journeyman.sources.turns import chat_message

_NO_TURNS = {
    "agent_state_changed", "change_agent_state", "null", "recall", "pause", "condensation_request", "loop_detection",
    "task_tracking",
}  # fmt: skip
_NO_KINDS = {
    "ConversationStateUpdateEvent", "PauseEvent", "CondensationRequest", "LLMCompletionLogEvent", "TokenEvent",
    "HookExecutionEvent", "CondensationSummaryEvent",
}  # fmt: skip


class Conversation:
    """Reads events in order; an answer is complete when something else follows its actions."""

    def __init__(self, place: Place, fields: dict[str, Any], *, of_lines: bool) -> None:
        self._place, self._fields, self._of_lines = place, fields, of_lines
        self._history: list[Message] = []
        self._tools: list[dict[str, Any]] = []
        self._answer: Message | None = None
        self._details: dict[str, Any] = {}
        self._response: str | None = None
        self._done: str | None = None
        self._line = 1
        self._time: Any = None
        self._notes: list[Note] = []
        self._broken: why.HistoryBroken | None = None

    def read(self, events: Sequence[Line], damaged: AbstractSet[int]) -> Iterator[Interaction | NotAnInteraction]:
        last = 0
        for event in events:
            if any(last < number < event.number for number in damaged):
                yield from self._flush()
                self._broken = self._broken or why.HistoryBroken("damaged_before")
            last = event.number
            try:
                yield from self._event(event.number, event.value)
            except NotAnInteraction as reason:
                self._broken = self._broken or why.HistoryBroken("not_understood", f"event {event.number}")
                yield reason.within(f"event {event.number}", event.number if self._of_lines else None)
        yield from self._flush()
        if not self._history and not events:
            raise NotAnInteraction(why.FieldMissing("events"))

    def _event(self, number: int, event: dict[str, Any]) -> Iterator[Interaction | NotAnInteraction]:
        kind = event.get("kind")
        if isinstance(kind, str):
            yield from self._newer(number, kind, event)
        elif "observation" in event:
            yield from self._observation(event)
        else:
            yield from self._action(number, event)

    def _action(self, number: int, event: dict[str, Any]) -> Iterator[Interaction | NotAnInteraction]:
        name, args = event.get("action"), mapping(event.get("args"))
        metadata = mapping(event.get("tool_call_metadata"))
        if name == "system":
            yield from self._flush()
            self._history.append(Message(role="system", content=str(args.get("content") or "")))
            self._tools = tools_of(args.get("tools"))
        elif name == "condensation":
            yield from self._flush()
            self._broken = why.HistoryBroken("condensed")
        elif isinstance(name, str) and name in _NO_TURNS and not metadata:
            return
        elif event.get("source") == "user":
            yield from self._flush()
            self._said("user", args.get("content", event.get("message")), event)
        elif metadata:
            response = mapping(metadata.get("model_response"))
            choices = response.get("choices")
            if not isinstance(choices, list) or not choices:
                raise NotAnInteraction(why.FieldMissing("model_response", "tool_call_metadata"))
            choice = mapping(choices[0])
            message = chat_message({"role": "assistant", **mapping(choice.get("message"))}, "model_response")
            details = {"model": response.get("model"), "finish_reason": choice.get("finish_reason")}
            id_ = text_or_none(response.get("id")) or text_or_none(metadata.get("tool_call_id"))
            yield from self._answered(number, event, id_, message, details)
        elif name == "message" and event.get("source") == "agent":
            text = blocks_of(args.get("content", event.get("message")), "args.content").texts
            yield from self._answered(number, event, None, Message(role="assistant", content="".join(text)), {})
        elif event.get("source") == "agent":
            yield from self._flush()
            shown = plain(str(name), 40)
            raise NotAnInteraction(
                why.NotLogged(f"an action {shown!r} without tool_call_metadata", "the model's response is not logged")
            )

    def _observation(self, event: dict[str, Any]) -> Iterator[Interaction | NotAnInteraction]:
        name, metadata = event.get("observation"), mapping(event.get("tool_call_metadata"))
        if metadata:
            yield from self._flush()
            self._said("tool", event.get("content"), event, text_or_none(metadata.get("tool_call_id")))
        elif name == "recall":
            self._notes = [note.TurnsNotKept("what OpenHands recalled of the workspace").record()]
        elif not (isinstance(name, str) and name in _NO_TURNS) and event.get("content"):
            yield from self._flush()
            self._said("user", event["content"], event)

    def _newer(self, number: int, kind: str, event: dict[str, Any]) -> Iterator[Interaction | NotAnInteraction]:
        if kind == "ActionEvent":
            message = Message(
                role="assistant",
                content="".join(blocks_of(event.get("thought"), "thought").texts),
                tool_calls=[tool_call(_call(event), "tool_call")],
            )
            details = {"reasoning": event.get("reasoning_content")}
            yield from self._answered(number, event, text_or_none(event.get("llm_response_id")), message, details)
            return
        said = mapping(event.get("llm_message"))
        if kind == "MessageEvent" and said.get("role") == "assistant":
            text = "".join(blocks_of(said.get("content"), "llm_message.content").texts)
            details = {"reasoning": said.get("reasoning_content")}
            yield from self._answered(number, event, None, Message(role="assistant", content=text), details)
            return
        yield from self._flush()
        if kind == "SystemPromptEvent":
            prompt = event.get("system_prompt")
            self._said("system", [prompt] if isinstance(prompt, dict) else prompt, event)
            self._tools = tools_of([_definition(one) for one in event.get("tools") or () if isinstance(one, dict)])
        elif kind == "MessageEvent":
            parts = [*_list(said.get("content")), *_list(event.get("extended_content"))]
            self._said("user", parts, event)
        elif kind in ("ObservationEvent", "UserRejectObservation", "AgentErrorEvent"):
            observation = mapping(event.get("observation"))
            content = observation.get("content", event.get("error", event.get("rejection_reason")))
            self._said("tool", content, event, text_or_none(event.get("tool_call_id")))
        elif kind == "Condensation":
            self._broken = why.HistoryBroken("condensed")
        elif kind not in _NO_KINDS:
            raise NotAnInteraction(why.UnknownType("an event", plain(kind, 40)))

    def _said(self, role: str, content: Any, event: dict[str, Any], call_id: str | None = None) -> None:
        blocks = blocks_of(content, "content")
        text = "\n".join(blocks.texts)
        self._history.append(Message(role=role, content=text, tool_call_id=call_id, extra=blocks.extra))
        self._time = event.get("timestamp") or self._time

    def _answered(
        self, number: int, event: dict[str, Any], id_: str | None, message: Message, details: dict[str, Any]
    ) -> Iterator[Interaction | NotAnInteraction]:
        """Adds the call of another action of the same response; a new response ends the previous answer."""
        if self._answer is None and id_ is not None and id_ == self._done:
            return self._repeated(message)
        if self._answer is not None and id_ is not None and id_ == self._response:
            known = {call.id for call in self._answer.tool_calls}
            calls = [call for call in message.tool_calls if call.id not in known]
            message = self._answer.model_copy(update={"tool_calls": [*self._answer.tool_calls, *calls]})
        else:
            yield from self._flush()
            self._details = details
        self._answer, self._response, self._line = message, id_, number
        self._details |= {"end": event.get("timestamp")}

    def _repeated(self, message: Message) -> None:
        """Checks an action of a response that was partly executed before: older versions log the response in each."""
        known = {call.id for one in self._history for call in one.tool_calls}
        if not {call.id for call in message.tool_calls} <= known:
            self._broken = why.HistoryBroken("response_apart")

    def _flush(self) -> Iterator[Interaction | NotAnInteraction]:
        answer, self._answer = self._answer, None
        if answer is None:
            return
        self._done = self._response
        place = self._place.at(self._line) if self._of_lines else self._place
        fields = {**self._fields, "notes": [*self._fields.get("notes", []), *self._notes]}
        details = self._details
        fields["model"] = text_or_none(details.get("model")) or fields["model"]
        try:
            if self._broken:
                raise NotAnInteraction(self._broken)
            yield answered(
                self._history,
                answer,
                place,
                id=place.source,
                tools=self._tools,
                reasoning=text_or_none(details.get("reasoning")),
                finish_reason=finish_reason(details.get("finish_reason")),
                duration_ms=between_ms(self._time, details.get("end")),
                timestamp=iso_time(self._time),
                **fields,
            )
        except NotAnInteraction as reason:
            yield NotAnInteraction(reason.reason, self._line if self._of_lines else None)
        self._history.append(answer)
        self._time = details.get("end") or self._time


def _call(event: dict[str, Any]) -> dict[str, Any]:
    call = mapping(event.get("tool_call"))
    name = call.get("name") or mapping(call.get("function")).get("name") or event.get("tool_name")
    arguments = decoded(call.get("arguments", mapping(call.get("function")).get("arguments")))
    return {"name": name, "arguments": arguments or {}, "id": event.get("tool_call_id") or call.get("id")}


def _definition(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool definition; tools of the SDK without a name are named by their title or kind."""
    return tool if "name" in tool or "function" in tool else {**tool, "name": tool.get("title")}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
