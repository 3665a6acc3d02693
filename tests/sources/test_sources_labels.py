"""What a log says of a call beside its texts: success, what is to be learned, whose answer it is, and how it ended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from journeyman.config import DataConfig
from journeyman.reasons.notes import UnknownStatus
from journeyman.records import Interaction, Rejected
from reading import code, one, read, reason

ASKED = [{"role": "user", "content": "Which part?"}]
ANSWER = {"role": "assistant", "content": "K-17."}


def pair(**beside: Any) -> dict[str, Any]:
    choices = [{"message": ANSWER, "finish_reason": "stop"}]
    return {"request": {"messages": ASKED}, "response": {"choices": choices}, **beside}


FAILED = [
    {"status": word}
    for word in ("fail", "timeout", "500", "0.0", "cancelled", "ERROR: quota", "No", "Timed out", "HTTP 503", "pending")
] + [
    {"is_success": False}, {"success": "false"}, {"status_code": 503}, {"http_status": "429"}, {"ok": False},
    {"error": {"message": "x"}}, {"errors": ["x"]}, {"failed": True}, {"exit_code": 2}, {"feedback": "thumbs_down"},
    {"status": {"code": 2, "message": "broken"}}, {"status": "ok", "success": False}, {"state": "RunState.FAILED"},
]  # fmt: skip


@pytest.mark.parametrize("beside", FAILED, ids=str)
def test_a_failure_in_any_words_is_no_success(beside: dict[str, Any]) -> None:
    found = one(pair(**beside))
    assert found.succeeded is False and found.errors
    table = one({"prompt": "Which part?", "answer": "K-17.", **beside})
    assert table.succeeded is False and table.errors


@pytest.mark.parametrize(
    "beside", [{}, {"status": "OK"}, {"status": 200}, {"error": {}}, {"error": ""}, {"success": 1}]
)
def test_an_answer_without_a_failure_is_a_success(beside: dict[str, Any]) -> None:
    assert one(pair(**beside)).succeeded is True


@pytest.mark.parametrize("beside", [{"status": "purple"}, {"score": 0}, {"feedback": "meh"}, {"status": 17}])
def test_an_unknown_word_leaves_success_open_and_is_noted(beside: dict[str, Any]) -> None:
    found = one(pair(**beside))
    assert found.succeeded is None
    (note,) = found.notes
    assert note.code == "unknown_status" and note.details["field"] == next(iter(beside))


def test_a_field_of_ones_own_says_what_a_success_is() -> None:
    config = {"success_field": "eval.reward", "success_at_least": 0.5}
    assert one(pair(eval={"reward": 0.7}, status="purple"), **config).succeeded is True
    low = one(pair(eval={"reward": "0.4"}), **config)
    assert low.succeeded is False and "0.4" in low.errors[0]
    absent = one(pair(), **config)
    assert absent.succeeded is None and absent.notes[-1].reason() == UnknownStatus("eval.reward")
    assert one(pair(status="failed"), **config).succeeded is False, "a failure that the log claims stands"
    with pytest.raises(ValueError, match="threshold for success_field"):
        DataConfig(success_at_least=0.5)
    assert one(pair(grade="good"), success_field="grade").succeeded is True


NOT_LEARNED = [
    {"weight": 0}, {"weight": "0"}, {"train": False}, {"training": "false"}, {"trainable": 0}, {"masked": True},
    {"loss": False}, {"loss_weight": 0.0}, {"loss_mask": 0},
]  # fmt: skip


@pytest.mark.parametrize("mark", NOT_LEARNED, ids=str)
def test_turns_and_rows_that_are_marked_are_not_learned(mark: dict[str, Any]) -> None:
    later = [{"role": "user", "content": "And?"}, {"role": "assistant", "content": "K-18."}]
    rows = [
        {"messages": [*ASKED, {**ANSWER, **mark}, *later]},
        {"conversations": [
            {"from": "human", "value": "Which part?"}, {"from": "gpt", "value": "K-17.", **mark},
            {"from": "human", "value": "And?"}, {"from": "gpt", "value": "K-18."},
        ]},
    ]  # fmt: skip
    for row in rows:
        assert one(row).output == "K-18."
    assert code({"messages": [*ASKED, {**ANSWER, **mark}]}) == "marked_not_to_train"
    for row in ({"messages": [*ASKED, ANSWER]}, {"instruction": "Which?", "output": "K."}, pair()):
        assert next(iter(mark)) in reason({**row, **mark})


@pytest.mark.parametrize("mark", [{"weight": 0.5}, {"loss_mask": [0, 1]}, {"train": "maybe"}], ids=str)
def test_a_mark_that_is_not_understood_is_named(mark: dict[str, Any]) -> None:
    assert f"messages[1].{next(iter(mark))}" in reason({"messages": [*ASKED, {**ANSWER, **mark}]})
    assert f"the row.{next(iter(mark))}" in reason({"messages": [*ASKED, ANSWER], **mark})


@pytest.mark.parametrize("name", ["output", "answer", "completion", "response", "target"])
def test_an_answer_beside_the_conversation_is_the_answer(name: str) -> None:
    before = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}, *ASKED]
    for answer in ("K-17.", ANSWER, [ANSWER]):
        found = one({"messages": before, name: answer})
        assert (found.output, len(found.messages)) == ("K-17.", 3)
    assert one({"messages": [*ASKED, ANSWER], name: "K-17."}).output == "K-17."
    assert code({"messages": [*ASKED, ANSWER], name: "K-18."}) == "different_answers"


def test_fields_that_hold_different_answers_are_named() -> None:
    assert "output and answer" in reason({"messages": ASKED, "answer": "K-17.", "output": "K-18."})


def test_an_unpaired_preference_that_is_not_wanted_is_no_success() -> None:
    for label in (True, False):
        assert one({"prompt": "Which?", "completion": "K-17.", "label": label}).succeeded is label
        assert one({"messages": [*ASKED, ANSWER], "label": label}).succeeded is label


def test_the_rejected_answer_of_a_pair_is_noted_and_never_the_answer() -> None:
    found = one({"prompt": "Which?", "chosen": "K-17.", "rejected": "Dunno."})
    assert found.output == "K-17." and found.notes[0].code == "choices_not_kept"


def test_a_system_prompt_beside_the_conversation_comes_first() -> None:
    for name in ("system", "system_prompt"):
        found = one({"messages": [*ASKED, ANSWER], name: "Be short."})
        assert [turn.content for turn in found.messages] == ["Be short.", "Which part?"]
        own = {"role": "system", "content": "Be long."}
        assert code({"messages": [own, *ASKED, ANSWER], name: "Be short."}) == "different_system_prompts"


def test_later_system_turns_stay_in_their_place() -> None:
    turns = [*ASKED, {"role": "developer", "content": "Be short."}, {"role": "user", "content": "Now."}, ANSWER]
    assert [turn.role for turn in one({"messages": turns}).messages] == ["user", "system", "user"]


@pytest.mark.parametrize(("word", "ours"), [
    ("MAX_TOKENS", "length"), ("model_length", "length"), ("model_context_window_exceeded", "length"),
    ("STOP", "stop"), ("END_TURN", "stop"), ("tool-calls", "tool_calls"), ("SAFETY", "content_filter"),
    ("FinishReason.STOP", "stop"), (None, None), ("other", None),
])  # fmt: skip
def test_finish_reasons_of_all_providers(word: str | None, ours: str | None) -> None:
    row = pair()
    row["response"]["choices"][0]["finish_reason"] = word
    found = one(row)
    assert found.finish_reason == ours and not found.notes


def test_an_unknown_finish_reason_is_noted_and_an_error_is_no_success() -> None:
    row = pair()
    row["response"]["choices"][0]["finish_reason"] = "green"
    found = one(row)
    assert found.finish_reason is None and found.notes[0].code == "unknown_finish_reason"
    for word in ("error", "cancelled", "abort"):
        row["response"]["choices"][0]["finish_reason"] = word
        assert one(row).succeeded is False


def test_calls_without_arguments_and_calls_told_twice() -> None:
    for empty in ("", None, "{}", {}):
        turn = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": empty}}]}
        assert one({"messages": [*ASKED, turn]}).output_calls[0].arguments == {}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    twice = {
        "role": "assistant", "tool_calls": [call],
        "content": [{"type": "text", "text": "So."}, {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}],
    }  # fmt: skip
    found = one({"messages": [*ASKED, twice]})
    assert (found.output, [(c.name, c.arguments) for c in found.output_calls]) == ("So.", [("f", {"a": 1})])
    hidden = {"role": "assistant", "content": "", "additional_kwargs": {"tool_calls": [call]}}
    assert [c.name for c in one({"messages": [*ASKED, hidden]}).output_calls] == ["f"]


@pytest.mark.parametrize("text", ["None", " null ", "NaN"])
def test_a_lost_call_is_never_an_answer(text: str) -> None:
    lost = {"role": "assistant", "content": text}
    assert code({"messages": [*ASKED, lost]}) == "answer_lost"
    assert code({"messages": [*ASKED, lost, {"role": "user", "content": "And?"}, ANSWER]}) == "answer_lost"
    assert code({"prompt": "Which?", "answer": text}) == "answer_lost"


def test_histories_without_their_beginning_and_unknown_roles_are_named() -> None:
    result = {"role": "tool", "content": "12", "tool_call_id": "c1"}
    assert code({"messages": [result, *ASKED, ANSWER]}) == "history_broken"
    assert code({"messages": [*ASKED, {"role": "tool", "content": "12"}, ANSWER]}) == "history_broken"
    call = {"id": "c2", "function": {"name": "f", "arguments": "{}"}}
    calls = {"role": "assistant", "content": "", "tool_calls": [call]}
    assert code({"messages": [*ASKED, calls, result, ANSWER]}) == "history_broken"
    assert code({"messages": [*ASKED, {"role": "critic", "content": "No."}, ANSWER]}) == "unknown_role"


def test_a_prefill_is_the_beginning_of_the_answer() -> None:
    asked = [*ASKED, {"role": "assistant", "content": '{"part":'}]
    said = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": ' "K-17"}'}]}
    found = one({"request": {"messages": asked, "max_tokens": 9}, "response": {**said, "stop_reason": "end_turn"}})
    assert (found.output, [turn.role for turn in found.messages]) == ('{"part": "K-17"}', ["user"])
    choice = {"message": {"role": "assistant", "content": ' "K-17"}'}}
    found = one({"request": {"messages": asked}, "response": {"choices": [choice]}})
    assert found.output == '{"part": "K-17"}'


def test_hermes_tags_become_tools_calls_and_results() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    turns = [
        {"from": "system", "value": f"Use <tools>\n{json.dumps(tool)}\n</tools>\nwell."},
        {"from": "human", "value": "Go."},
        {"from": "gpt", "value": 'Yes.\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'},
        {"from": "function", "value": "<tool_response>\n12\n</tool_response>"},
        {"from": "gpt", "value": "Twelve."},
    ]
    called, said = (found for found in read({"conversations": turns}) if isinstance(found, Interaction))
    assert called.output == "Yes." and called.output_calls[0].arguments == {"a": 1} and called.tools == [tool]
    assert said.output == "Twelve." and said.messages[-1].role == "tool" and said.messages[-1].content == "12"
    assert called.session == said.session


OPINIONS = [
    {"label": False}, {"correct": False}, {"is_correct": "no"}, {"accepted": False}, {"verdict": "incorrect"},
    {"result": "FAIL"}, {"thumbs_up": False}, {"feedback": {"thumbs": "down"}}, {"evaluation": {"passed": False}},
    {"metadata": {"success": False}}, {"metadata": {"status": "failed"}}, {"kto_tag": "false"},
]  # fmt: skip


@pytest.mark.parametrize("beside", OPINIONS, ids=str)
def test_an_opinion_against_an_answer_is_no_success_wherever_it_stands(beside: dict[str, Any]) -> None:
    for row in (
        pair(**beside),
        {"messages": [*ASKED, ANSWER], **beside},
        {"prompt": "Which?", "answer": "K.", **beside},
    ):
        found = one(row)
        assert found.succeeded is False and found.errors, row
    score = one(pair(user_feedback={"score": 0}))
    assert score.succeeded is None and score.notes[0].code == "unknown_status"


@pytest.mark.parametrize("beside", [{"result": "The pump runs."}, {"label": "valves"}, {"label": 3}], ids=str)
def test_a_text_that_is_no_verdict_claims_nothing(beside: dict[str, Any]) -> None:
    assert one(pair(**beside)).succeeded is True and not one(pair(**beside)).notes


@pytest.mark.parametrize("label", ["false", "FALSE", 0, "0"])
def test_labels_of_unpaired_preferences_as_tables_write_them(label: Any) -> None:
    assert one({"prompt": "Which?", "completion": "K-17.", "label": label}).succeeded is False


def test_what_an_answer_turn_says_of_itself_counts() -> None:
    for mark in ({"status": "failed"}, {"is_error": True}, {"error": "overloaded"}):
        assert one({"messages": [*ASKED, {**ANSWER, **mark}]}).succeeded is False


@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}], ids=str)
def test_marks_in_metadata_count_where_they_clearly_say_no(mark: dict[str, Any]) -> None:
    assert code({**pair(), "metadata": mark}) == "marked_not_to_train"
    assert code({"messages": [*ASKED, {**ANSWER, "metadata": mark}]}) == "marked_not_to_train"
    assert one({**pair(), "metadata": {"weight": 0.7}}).output == "K-17."


def test_an_empty_mark_is_no_mark() -> None:
    assert one({"prompt": "Which?", "answer": "K.", "weight": ""}).output == "K."


def test_what_stands_beside_a_conversation_is_read() -> None:
    beside = {"finish_reason": "length", "session_id": "s", "model": "m", "duration_ms": 7, "timestamp": "2026-03-01"}
    found = one({"messages": [*ASKED, ANSWER], **beside})
    assert (found.finish_reason, found.session, found.model, found.duration_ms) == ("length", "s", "m", 7)
    for name in ("conversation_id", "thread_id"):
        assert one(pair(**{name: "s"})).session == "s"
        assert one({"prompt": "Which?", "answer": "K.", name: "s"}).session == "s"
    calls = [{"function": {"name": "f", "arguments": "{}"}}]
    for row in ({"messages": ASKED, "output": "So.", "tool_calls": calls}, {"messages": ASKED, "tool_calls": calls}):
        assert [call.name for call in one(row).output_calls] == ["f"]


def test_false_and_zero_are_kept_beside_the_agent_log() -> None:
    row = {"agent": {"role": "a"}, "llm": {}, "note": False, "n": 0, "execution": {
        "status": "success", "input_messages": ASKED, "output": "K-17.", "retries": 0}}  # fmt: skip
    found = one(row)
    assert (found.extra["note"], found.extra["n"], found.extra["execution"]) == (False, 0, {"retries": 0})
    assert one({**row, "status": "failed"}).succeeded is False


def test_a_response_that_goes_on_from_another_needs_its_turns() -> None:
    answer = {"object": "response", "output": [{"type": "message", "role": "assistant", "content": "K-17."}]}
    request = {"input": "And?", "previous_response_id": "resp_1"}
    assert code({"request": request, "response": answer}) == "earlier_response"


def test_legacy_functions_are_tools() -> None:
    row = pair()
    row["request"]["functions"] = [{"name": "f", "parameters": {"type": "object", "properties": {}}}]
    assert [tool["function"]["name"] for tool in one(row).tools] == ["f"]


def test_of_no_answer_nobody_knows_that_it_is_right() -> None:
    row = {"id": "o", "traceId": "t", "type": "GENERATION", "input": ASKED, "output": None, "level": "DEFAULT"}
    (found,) = read(row)
    assert isinstance(found, Rejected) or found.succeeded is None


def test_a_batch_answer_that_expired_is_a_failure() -> None:
    body = {"messages": ASKED}
    row = {"custom_id": "r", "body": body, "response": None, "error": {"code": "batch_expired", "message": "expired"}}
    found = one(row)
    assert found.succeeded is False and found.errors == ["expired"]
