"""What observability tools store of a call: Langfuse, LangSmith, OpenTelemetry, MLflow, Braintrust and Weave."""

from __future__ import annotations

import json
from typing import Any

import pytest

from journeyman.reasons import Reason
from journeyman.reasons.sources import EarlierResponse, FieldEmpty, NotAModelCall, SeveralInOne, UnknownFields
from journeyman.records import Interaction
from reading import code, one, read, reason, rejected

ASKED = [{"role": "system", "content": "You keep the shelves."}, {"role": "user", "content": "Where is K-17?"}]
SAID = {"role": "assistant", "content": "Shelf 4."}
SCHEMA = {"type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"]}
FIND = {"type": "function", "function": {"name": "find", "description": "Finds a part", "parameters": SCHEMA}}
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"number": "K-17"}'}}
CALLED = [("find", {"number": "K-17"})]


def kept(row: dict[str, Any], **config: Any) -> list[Interaction]:
    return [one for one in read(row, **config) if isinstance(one, Interaction)]


def turns(found: Interaction) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in found.messages]


def calls(found: Interaction) -> list[tuple[str, Any]]:
    return [(call.name, call.arguments) for call in found.output_calls]


def names(found: Interaction) -> list[str]:
    return [tool["function"]["name"] for tool in found.tools]


def observation(given: Any, answer: Any, **beside: Any) -> dict[str, Any]:
    return {"id": "o1", "traceId": "t1", "type": "GENERATION", "startTime": "2026-03-01T10:00:00Z",
            "input": given, "output": answer, **beside}  # fmt: skip


INPUTS = [
    ASKED,
    json.dumps(ASKED),
    {"messages": ASKED},
    {"messages": [ASKED]},
    [ASKED],
    {"kwargs": {"messages": ASKED}, "args": []},
    {"args": [{"messages": ASKED}], "kwargs": {}},
    {"args": [ASKED], "kwargs": {}},
    {"system": ASKED[0]["content"], "messages": ASKED[1:]},
    {"system": [{"type": "text", "text": ASKED[0]["content"]}], "messages": ASKED[1:]},
    {"instructions": ASKED[0]["content"], "input": ASKED[1]["content"]},
    {"instructions": ASKED[0]["content"], "input": ASKED[1:]},
    [{"type": "message", **ASKED[0]}, {"type": "message", **ASKED[1]}],
    [{"role": one["role"], "parts": [{"type": "text", "content": one["content"]}]} for one in ASKED],
    [{"type": "system", "content": ASKED[0]["content"]}, {"type": "human", "content": ASKED[1]["content"]}],
    [{"lc": 1, "id": ["x", name], "kwargs": {"content": turn["content"]}}
     for name, turn in zip(("SystemMessage", "HumanMessage"), ASKED, strict=True)],
    {"contents": [{"role": "user", "parts": [{"text": ASKED[1]["content"]}]}],
     "config": {"system_instruction": {"parts": [{"text": ASKED[0]["content"]}]}}},
]  # fmt: skip


@pytest.mark.parametrize("given", INPUTS, ids=lambda one: str(one)[:60])
def test_an_input_of_every_dialect_gives_the_same_turns(given: Any) -> None:
    assert turns(one(observation(given, "Shelf 4."))) == [
        ("system", "You keep the shelves."),
        ("user", "Where is K-17?"),
    ]


SAYINGS = [
    "Shelf 4.",
    SAID,
    [SAID],
    {"choices": [{"message": SAID, "finish_reason": "stop"}]},
    [{"index": 0, "message": SAID, "finish_reason": "stop"}],
    {"object": "response", "output": [{"type": "message", "role": "assistant",
                                       "content": [{"type": "output_text", "text": "Shelf 4."}]}]},
    {"output": [{"type": "reasoning", "summary": []}, {"type": "message", "role": "assistant", "content": "Shelf 4."}]},
    [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Shelf 4."}]}],
    {"candidates": [{"content": {"role": "model", "parts": [{"text": "Shelf "}, {"text": "4."}]}}]},
    {"generations": [[{"text": "Shelf 4.", "generation_info": {"finish_reason": "stop"}}]]},
    {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "Shelf 4."}],
     "stop_reason": "end_turn"},
    [{"type": "text", "text": "Shelf 4."}],
    [{"role": "assistant", "parts": [{"type": "text", "content": "Shelf 4."}], "finish_reason": "stop"}],
    {"text": "Shelf 4.", "finishReason": "stop"},
    {"messages": [*ASKED, SAID]},
    {"type": "ai", "content": "Shelf 4.", "response_metadata": {"finish_reason": "stop"}},
]  # fmt: skip


@pytest.mark.parametrize("answer", SAYINGS, ids=lambda one: str(one)[:60])
def test_an_output_of_every_dialect_gives_the_same_answer(answer: Any) -> None:
    found = one(observation(ASKED, answer))
    assert (found.output, calls(found), found.finish_reason or "stop") == ("Shelf 4.", [], "stop")
    assert turns(found) == [("system", "You keep the shelves."), ("user", "Where is K-17?")]


CALLINGS = [
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "assistant", "content": "", "additional_kwargs": {"tool_calls": [CALL]}},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "find", "input": {"number": "K-17"}}]},
    {"role": "assistant", "tool_calls": [{"id": "c1", "name": "find", "args": {"number": "K-17"}}],
     "content": [{"type": "tool_use", "id": "c1", "name": "find", "input": {}, "partial_json": '{"number": "K-17"}'}]},
    {"choices": [{"message": {"content": None, "tool_calls": [CALL]}, "finish_reason": "tool_calls"}]},
    {"object": "response", "output": [{"type": "function_call", "call_id": "c1", "name": "find",
                                       "arguments": '{"number": "K-17"}'}]},
    {"candidates": [{"content": {"parts": [{"functionCall": {"name": "find", "args": {"number": "K-17"}}}]}}]},
    [{"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "find",
                                      "arguments": {"number": "K-17"}}], "finish_reason": "tool_call"}],
    {"text": "", "toolCalls": [{"toolCallId": "c1", "toolName": "find", "input": {"number": "K-17"}}]},
]  # fmt: skip


@pytest.mark.parametrize("answer", CALLINGS, ids=lambda one: str(one)[:60])
def test_an_output_of_every_dialect_gives_the_same_call(answer: Any) -> None:
    found = one(observation(ASKED, answer))
    assert calls(found) == CALLED and found.output == ""


def test_tools_among_the_turns_are_tools_and_a_tools_result_stays_a_turn() -> None:
    found = one(observation([*ASKED, {"role": "tool", "content": FIND}], "Shelf 4."))
    assert names(found) == ["find"] and [turn.role for turn in found.messages] == ["system", "user"]
    result = {"role": "tool", "tool_call_id": "c1", "content": json.dumps({"name": "K-17", "shelf": 4})}
    found = one(observation([*ASKED, {"role": "assistant", "content": "", "tool_calls": [CALL]}, result], "Shelf 4."))
    assert found.messages[-1].role == "tool" and "shelf" in found.messages[-1].content and not found.tools


def test_several_answers_are_as_many_rows_and_a_dialogue_is_its_last() -> None:
    two = one_each = kept(observation(ASKED, {"choices": [{"message": SAID}, {"message": {"content": "Shelf 5."}}]}))
    assert [found.output for found in one_each] == ["Shelf 4.", "Shelf 5."] and len({found.id for found in two}) == 2
    steps = [{"role": "assistant", "content": "", "tool_calls": [CALL]},
             {"role": "tool", "tool_call_id": "c1", "content": "4"}, SAID]  # fmt: skip
    found = one(observation(ASKED, steps))
    assert found.output == "Shelf 4." and [turn.role for turn in found.messages][2:] == ["assistant", "tool"]


def test_events_in_an_observation_are_turns_and_one_choice_of_two_calls_is_one_answer() -> None:
    other = {**CALL, "id": "c2"}
    given = [{"event.name": "gen_ai.user.message", "role": "user", "content": "Where?", "gen_ai.message.index": 0}]
    given += [{"event.name": "gen_ai.assistant.message", "role": "assistant", "tool_calls": [one]}
              for one in (CALL, other)]  # fmt: skip
    given += [{"event.name": "gen_ai.tool.message", "role": "tool", "id": one["id"], "content": "4"}
              for one in (CALL, other)]  # fmt: skip
    said = [{"event.name": "gen_ai.choice", "index": 0, "message": {"role": "assistant", "tool_calls": [one]}}
            for one in (CALL, other)]  # fmt: skip
    found = one(observation(given, said))
    assert [turn.role for turn in found.messages] == ["user", "assistant", "tool", "tool"]
    assert len(found.messages[1].tool_calls) == 2 and calls(found) == CALLED * 2
    spoken = {"event.name": "gen_ai.choice", "index": 0, "message": {"role": "assistant", "content": "Both there."}}
    assert one(observation(given, [spoken, said[0]])).output == "Both there."


@pytest.mark.parametrize(
    "lost", ["None", "null", {"output": "None"}, {"role": "assistant", "content": "None"}], ids=str
)
def test_a_lost_answer_is_not_learned(lost: Any) -> None:
    assert code(observation(ASKED, lost)) == "answer_lost" and code(run({"output": lost})) == "answer_lost"


@pytest.mark.parametrize(
    ("given", "answer", "told"),
    [
        (None, "Shelf 4.", FieldEmpty("input", "the call's input was not recorded")),
        ([ASKED, ASKED], "Shelf 4.", SeveralInOne("input", 2, "conversations of one batch")),
        ({"colour": "red"}, "Shelf 4.", UnknownFields("input", "'colour'", "a conversation")),
        (ASKED, {"colour": "red"}, UnknownFields("output", "'colour'", "an answer")),
        (
            ASKED,
            {"object": "response", "previous_response_id": "r0", "output": []},
            EarlierResponse("output.previous_response_id"),
        ),
        (
            {"previous_response_id": "r0", "input": "And K-18?"},
            "Shelf 5.",
            EarlierResponse("input.previous_response_id"),
        ),
    ],
)
def test_what_is_no_call_is_refused_by_the_field(given: Any, answer: Any, told: Reason) -> None:
    assert rejected(observation(given, answer)).reason() == told


def test_a_langfuse_trace_lends_its_observations_what_it_says_of_all() -> None:
    trace = {"id": "t1", "sessionId": "s1", "tags": ["role:clerk"], "userId": "u1"}
    inner = [
        observation(ASKED, "Shelf 4."),
        observation(ASKED, "Shelf 5.", id="o2", level="ERROR", statusMessage="slow"),
    ]
    for row in ({"trace": trace, "observations": inner}, {**trace, "observations": inner}):
        good, bad = kept(row)
        assert (good.role, good.session, good.succeeded) == ("clerk", "s1", True)
        assert bad.succeeded is False and bad.errors == ["slow"]
    assert code({"trace": trace, "observations": ["o1", "o2"]}) == "not_logged"
    listed = {**trace, "timestamp": "2026-03-01T10:00:00Z", "input": "Hi", "output": "Hello.", "observations": ["o1"]}
    assert code(listed) == "not_logged"


def test_langfuse_scores_leave_success_open_and_a_setting_reads_them() -> None:
    scores = [{"name": "right", "value": 0, "observationId": "o1"}]
    row = {"trace": {"id": "t1"}, "scores": scores, "observations": [observation(ASKED, "Shelf 4.")]}
    (found,) = kept(row)
    assert found.succeeded is None and found.notes[0].code == "unknown_status"
    (found,) = kept(row, success_field="scores.0.value", success_at_least=0.5)
    assert found.succeeded is False
    warned = one(observation(ASKED, "Shelf 4.", level="WARNING", statusMessage="slow"))
    assert warned.succeeded is True and warned.notes[0].code == "log_level" and "slow" in warned.notes[0].sentence()


def test_a_langfuse_table_is_read_by_the_names_of_its_columns() -> None:
    row = {"Trace ID": "t1", "Type": "GENERATION", "Start Time": "2026-03-01T10:00:00Z", "Input": json.dumps(ASKED)}
    assert one({**row, "Output": "Shelf 4."}).output == "Shelf 4."
    assert rejected({**row, "Output": "x", "Type": "SPAN"}).reason() == NotAModelCall("an observation", "SPAN")


def run(answer: Any, **beside: Any) -> dict[str, Any]:
    return {"id": "r1", "run_type": "llm", "trace_id": "t1", "inputs": {"messages": ASKED}, "outputs": answer, **beside}


@pytest.mark.parametrize(
    ("beside", "succeeded"),
    [
        ({"status": "success"}, True),
        ({"status": "error", "error": ""}, False),
        ({"status": "pending", "error": None}, False),
        ({"error": "RateLimitError()"}, False),
        ({"status": "purple"}, None),
        ({}, True),
    ],
)
def test_a_langsmith_run_succeeds_as_its_status_says(beside: dict[str, Any], succeeded: bool | None) -> None:
    found = one(run({"choices": [{"message": SAID}]}, **beside))
    assert found.succeeded is succeeded and bool(found.errors) == (succeeded is False)
    assert (succeeded is None) == any(note.code == "unknown_status" for note in found.notes)


def test_a_langsmith_batch_is_joined_by_id_or_by_the_trace_of_a_root() -> None:
    posts = [{"id": name, "run_type": "llm", "trace_id": "a", "inputs": {"messages": ASKED}} for name in "ab"]
    patches = [{"id": "b", "trace_id": "a", "outputs": {"choices": [{"message": {"content": "B."}}]}},
               {"trace_id": "a", "outputs": {"choices": [{"message": {"content": "A."}}]}},
               {"trace_id": "a", "error": "slow", "outputs": None}]  # fmt: skip
    first, second = kept({"post": posts, "patch": patches})
    assert (first.output, second.output) == ("A.", "B.") and first.errors == ["slow"] and second.succeeded is True
    assert len({first.id, second.id}) == 2
    assert code({"patch": patches[:1]}) == "not_logged"
    open_ = one({"post": posts[:1], "patch": []})
    assert open_.output is None and open_.succeeded is None


def test_every_generation_of_a_langsmith_run_is_read_and_batches_of_prompts_are_refused() -> None:
    two = {"generations": [[{"text": "A.", "generation_info": {"finish_reason": "stop"}},
                            {"text": "B.", "generation_info": {"finish_reason": "length"}}]]}  # fmt: skip
    assert [(found.output, found.finish_reason) for found in kept(run(two))] == [("A.", "stop"), ("B.", "length")]
    assert code(run({"generations": [[{"text": "A."}], [{"text": "B."}]]})) == "several_in_one"
    assert code({**run({"generations": []}), "inputs": {"prompts": ["A?", "B?"]}}) == "several_in_one"


def test_what_langchain_says_beside_an_answer_is_kept() -> None:
    more = {"reasoning_content": "hm", "usage": {"cost": 3}}
    data = {"content": "Shelf 4.", "usage_metadata": {"output_tokens": 7}, "additional_kwargs": more}
    message = {"type": "ai", "data": data}
    found = one(run({"generations": [[{"text": "Shelf 4.", "message": message}]]}))
    assert found.extra["answer"]["usage_metadata"] == {"output_tokens": 7} and found.reasoning == "hm"
    assert found.extra["answer"]["additional_kwargs"] == {"usage": {"cost": 3}}


def span(attributes: Any, **beside: Any) -> dict[str, Any]:
    return {"name": "chat", "context": {"trace_id": "t1", "span_id": "s1"}, "attributes": attributes, **beside}


def chat(**more: Any) -> dict[str, Any]:
    return {"gen_ai.operation.name": "chat", "gen_ai.input.messages": json.dumps(ASKED), **more}


ANSWERED = {"gen_ai.output.messages": json.dumps([SAID])}
SPAN_FAILURES = [
    {"status": {"code": 2}},
    {"status": {"code": "STATUS_CODE_ERROR", "message": "slow"}},
    {"status": {"status_code": "ERROR"}},
    {"status": {"statusCode": "Error", "description": "slow"}},
    {"status": "ERROR"},
    {"status_code": "ERROR", "status_message": "slow"},
    {"statusCode": "STATUS_CODE_ERROR"},
    {"otel_status_code": "ERROR", "otel_status_message": "slow"},
    {"is_exception": True, "exception_type": "TimeoutError"},
    {"events": [{"name": "exception", "attributes": {"exception.message": "slow"}}]},
    {"attributes": {**chat(**ANSWERED), "error.type": "timeout"}},
    {"attributes": {**chat(**ANSWERED), "otel.status_code": "ERROR"}},
    {"attributes": {**chat(**ANSWERED), "error": True}},
]


@pytest.mark.parametrize("beside", SPAN_FAILURES, ids=str)
def test_a_span_that_failed_in_any_spelling_is_no_success(beside: dict[str, Any]) -> None:
    found = one({**span(chat(**ANSWERED)), **beside})
    assert found.succeeded is False and found.errors and found.output == "Shelf 4."


@pytest.mark.parametrize("beside", [{}, {"status": {"code": 0}}, {"status": {"code": 1}}, {"status_code": "UNSET"},
                                    {"status": {"code": "STATUS_CODE_OK"}}, {"status": {}}], ids=str)  # fmt: skip
def test_a_span_without_an_error_is_a_success(beside: dict[str, Any]) -> None:
    assert one(span(chat(**ANSWERED), **beside)).succeeded is True
    assert one(span(chat(), **beside)).succeeded is not False


def test_several_outputs_of_a_span_are_as_many_rows() -> None:
    two = json.dumps([{**SAID, "finish_reason": "stop"}, {"role": "assistant", "content": "Shelf 5."}])
    found = kept(span(chat(**{"gen_ai.output.messages": two})))
    assert [one.output for one in found] == ["Shelf 4.", "Shelf 5."]
    flat = {"gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "Where?"}
    flat |= {f"gen_ai.completion.{n}.{key}": value for n in (0, 1) for key, value in (("content", f"{n}."),)}
    assert [one.output for one in kept(span(flat))] == ["0.", "1."]


def test_parts_of_openinference_and_of_openllmetry_are_read_and_pictures_refused() -> None:
    def parts(*kinds: str) -> dict[str, Any]:
        name = "llm.input_messages.0.message"
        held = {f"{name}.contents.{n}.message_content.type": kind for n, kind in enumerate(kinds)}
        held |= {f"{name}.contents.{n}.message_content.{kind}": f"{kind} {n}. " for n, kind in enumerate(kinds)}
        return {f"{name}.role": "user", **held, "llm.output_messages.0.message.content": "Shelf 4."}

    assert one(span(parts("text", "text"))).messages[0].content == "text 0. text 1. "
    assert code(span(parts("text", "image"))) == "not_text"
    text = json.dumps([{"type": "text", "text": "Where?"}])
    flat = {"gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": text, "gen_ai.completion.0.content": "There."}
    assert one(span(flat)).messages[0].content == "Where?"


def test_a_vercel_span_is_read_and_the_span_around_it_refused() -> None:
    asked = json.dumps([ASKED[0], {"role": "user", "content": [{"type": "text", "text": "Where is K-17?"}]}])
    held = {"ai.operationId": "ai.streamText.doStream", "ai.prompt.messages": asked}
    called = json.dumps([{"toolCallId": "c1", "toolName": "find", "args": '{"number": "K-17"}'}])
    tool = json.dumps({"type": "function", "name": "find", "parameters": SCHEMA})
    found = one(span({**held, "ai.response.toolCalls": called, "ai.prompt.tools": [tool],
                      "ai.response.finishReason": "tool-calls"}))  # fmt: skip
    assert (calls(found), found.output, found.finish_reason) == (CALLED, "", "tool_calls") and names(found) == ["find"]
    thought = one(span({**held, "ai.response.text": "Shelf 4.", "ai.response.reasoning": "hm"}))
    assert (thought.output, thought.reasoning) == ("Shelf 4.", "hm")
    assert one(span({**held, "ai.response.object": '{"shelf": 4}'})).output == '{"shelf": 4}'
    assert "doGenerate" in reason(span({"ai.operationId": "ai.generateText", "ai.prompt": "{}"}))
    assert "ai.toolCall" in reason(span({"ai.operationId": "ai.toolCall", "ai.toolCall.name": "find"}))


def test_calls_side_by_side_in_events_are_one_turn() -> None:
    def called(id_: str, number: str) -> dict[str, Any]:
        arguments = json.dumps({"number": number})
        return {"tool_calls": [{"id": id_, "type": "function", "function": {"name": "find", "arguments": arguments}}]}

    events = [{"event.name": "gen_ai.user.message", "role": "user", "content": "Both?"}]
    events += [{"event.name": "gen_ai.assistant.message", "role": "assistant", **called(*one)} for one in CALLS]
    events += [{"event.name": "gen_ai.tool.message", "role": "tool", "id": one[0], "content": "4"} for one in CALLS]
    choices = [{"event.name": "gen_ai.choice", "index": 0, "message": called(*one)} for one in CALLS]
    found = one(span({"gen_ai.system": "openai", "events": json.dumps([*events, *choices])}))
    assert [turn.role for turn in found.messages] == ["user", "assistant", "tool", "tool"]
    assert len(found.messages[1].tool_calls) == len(found.output_calls) == 2
    spread = [{"name": one.pop("event.name"), "attributes": one} for one in (dict(one) for one in [*events, *choices])]
    assert len(one(span({"gen_ai.system": "openai"}, events=spread)).output_calls) == 2


CALLS = (("c1", "K-17"), ("c2", "K-18"))


def test_a_logfire_span_is_read_from_its_table() -> None:
    data = {"request_data": {"messages": ASKED, "model": "gpt-4o"}, "response_data": {"message": SAID}}
    for attributes in (data, {name: json.dumps(value) for name, value in data.items()}, json.dumps(data)):
        row = {"attributes": attributes, "trace_id": "t1", "span_id": "s1", "logfire.x": 1}
        found = read({**row, "attributes": _marked(attributes)})
        assert isinstance(found[0], Interaction) and (found[0].output, found[0].model) == ("Shelf 4.", "gpt-4o")
    streamed = {"request_data": {"messages": ASKED}, "response_data": {"combined_chunk_content": "Shelf 4."}}
    assert one(span(_marked(streamed))).output == "Shelf 4."


def _marked(attributes: Any) -> Any:
    mark = {"logfire.span_type": "span"}
    return json.dumps({**json.loads(attributes), **mark}) if isinstance(attributes, str) else {**attributes, **mark}


def test_why_a_span_is_not_read_is_true() -> None:
    assert code(span({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 3})) == "not_logged"
    told = reason(span({"gen_ai.operation.name": "chat", "gen_ai.input.secret_messages": "x"}))
    assert "gen_ai.input.secret_messages" in told and "capture" not in told
    assert code(span(chat(**{"gen_ai.operation.name": "invoke_agent"}))) == "not_a_model_call"


def logged(**beside: Any) -> dict[str, Any]:
    row = {"id": "c1", "call_type": "acompletion", "startTime": 1741569952.5, "messages": ASKED, "status": "success"}
    return {**row, "response": {"choices": [{"message": SAID, "finish_reason": "stop"}]}, **beside}


def test_litellm_gives_every_choice_and_takes_what_the_proxy_got() -> None:
    two = {"choices": [{"message": SAID, "finish_reason": "stop"}, {"message": {"content": "Shelf 5."}}]}
    assert [found.output for found in kept(logged(response=two))] == ["Shelf 4.", "Shelf 5."]
    sent = {"messages": ASKED, "tools": [FIND], "model": "gpt-4o"}
    for request in (sent, {"body": sent}, json.dumps(sent)):
        assert names(one(logged(messages={}, proxy_server_request=request))) == ["find"]
    assert names(one(logged(proxy_server_request=sent))) == ["find"]
    items = {"object": "response", "output": [{"type": "function_call", "name": "find", "arguments": "{}"}]}
    found = one(logged(call_type="aresponses", messages="Where?", response=items))
    assert calls(found) == [("find", {})]


@pytest.mark.parametrize(
    ("beside", "succeeded"),
    [
        ({}, True),
        ({"status": "failure"}, False),
        ({"metadata": {"error_information": {"error_code": "", "error_message": "", "error_class": ""}}}, True),
        ({"metadata": {"error_information": {"error_code": "429", "error_message": "slow"}}}, False),
        ({"status_fields": {"llm_api_status": "failure"}}, False),
        ({"metadata": {"status": "failure"}}, False),
    ],
    ids=str,
)
def test_a_litellm_call_succeeds_as_it_says(beside: dict[str, Any], succeeded: bool) -> None:
    assert one(logged(**beside)).succeeded is succeeded


@pytest.mark.parametrize(
    ("beside", "told"),
    [
        ({"messages": [{"role": "user", "content": "redacted-by-litellm"}]}, "turn_off_message_logging"),
        ({"messages": [{"role": "user", "content": "a... (litellm_truncated 90 chars)"}]}, "was cut"),
        ({"messages": {}}, "store_prompts_in_spend_logs"),
        ({"response": {}}, "no choices"),
    ],
    ids=str,
)
def test_texts_that_litellm_did_not_store_are_refused(beside: dict[str, Any], told: str) -> None:
    assert told in reason(logged(**beside))


def trace(span_fields: dict[str, Any], **info: Any) -> dict[str, Any]:
    attributes = {
        "mlflow.spanType": '"LLM"',
        "mlflow.spanInputs": json.dumps(ASKED),
        "mlflow.spanOutputs": '"Shelf 4."',
    }
    return {"info": {"trace_id": "t1", **info}, "data": {"spans": [{"attributes": attributes, **span_fields}]}}


def test_an_mlflow_trace_gives_its_models_spans() -> None:
    found = one(trace({}, trace_metadata={"mlflow.trace.session": "s1"}, tags={"agent": "clerk"}))
    assert (found.output, found.session, found.role, found.succeeded) == ("Shelf 4.", "s1", "clerk", True)
    assert kept({"traces": [trace({}), trace({})]})[1].output == "Shelf 4."
    assert one({"trace": json.dumps(trace({})), "state": "OK"}).output == "Shelf 4."
    flat = {"span_type": "CHAT_MODEL", "inputs": {"messages": ASKED}, "outputs": SAID, "attributes": {}}
    assert one({"info": {}, "data": {"spans": [flat]}}).output == "Shelf 4."


@pytest.mark.parametrize(
    ("row", "succeeded"),
    [
        (trace({"status": {"code": "STATUS_CODE_ERROR", "message": "slow"}}), False),
        (trace({"status_code": "ERROR"}), False),
        (trace({}, state="OK"), True),
        (trace({}, state="ERROR"), None),
        (trace({}, assessments=[{"assessment_name": "right", "feedback": {"value": False}}]), None),
    ],
)
def test_an_mlflow_span_succeeds_as_it_and_its_trace_say(row: dict[str, Any], succeeded: bool | None) -> None:
    found = one(row)
    assert found.succeeded is succeeded and (succeeded is not None or found.notes[0].code == "unknown_status")


def test_braintrust_scores_are_no_success_until_a_setting_says_so() -> None:
    row = {"id": "e1", "root_span_id": "r1", "span_attributes": {"type": "llm"}, "input": ASKED, "output": SAID}
    assert one(row).succeeded is True
    assert one({**row, "scores": {"Factuality": None}}).succeeded is True
    judged = {**row, "scores": {"Factuality": 0.2}}
    assert one(judged).succeeded is None
    assert one(judged, success_field="scores.Factuality", success_at_least=0.5).succeeded is False
    assert one({**row, "error": {"message": "slow"}}).errors == ["slow"]
    assert code({**row, "span_attributes": {"type": "tool"}}) == "not_a_model_call"


def weave(**beside: Any) -> dict[str, Any]:
    row = {"id": "w1", "op_name": "weave:///a/b/op/openai.chat.completions.create:x", "trace_id": "t1"}
    return {**row, "inputs": {"messages": ASKED}, "output": {"choices": [{"message": SAID}]}, **beside}


@pytest.mark.parametrize(
    ("beside", "succeeded"),
    [
        ({"summary": {"weave": {"status": "success"}}}, True),
        ({"summary": {"weave": {"status": "error"}}}, False),
        ({"summary": {"weave": {"status": "descendant_error"}}}, False),
        ({"summary": {"weave": {"status": "running"}}}, False),
        ({"summary.weave.status": "error"}, False),
        ({"exception": "ValueError"}, False),
        ({}, True),
    ],
    ids=str,
)
def test_a_weave_call_succeeds_as_its_summary_says(beside: dict[str, Any], succeeded: bool) -> None:
    assert one(weave(**beside)).succeeded is succeeded


def test_weave_calls_of_models_are_told_by_their_client_or_by_their_texts() -> None:
    for op in ("openai.responses.create", "anthropic.AsyncMessages.stream", "litellm.acompletion",
               "google.genai.models.Models.generate_content", "langchain.Llm.ChatOpenAI"):  # fmt: skip
        assert one(weave(op_name=op, output="Shelf 4.")).output == "Shelf 4."
    assert one(weave(op_name="my_chat")).output == "Shelf 4."
    assert code(weave(op_name="my_chat", output={"score": 1})) == "not_a_model_call"
    assert code(weave(output="weave:///a/b/object/x:1")) == "not_logged"
