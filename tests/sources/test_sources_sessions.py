"""Sessions of coding agents, which are read as whole files, and trajectories with an outcome."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damage import JSON, damage
from journeyman.artifacts import read_rows
from journeyman.config import DataConfig, RedactConfig
from journeyman.protocols import SilentReporter
from journeyman.reasons import Reason
from journeyman.reasons.files import OtherFormatSet
from journeyman.reasons.sources import FieldEmpty, HistoryBroken, HistoryTooLong, NotText, UnknownType
from journeyman.records import Interaction, Rejected
from journeyman.redaction.redactor import Redactor
from journeyman.sources import files
from journeyman.sources.files import Row, parse_line, read_file, sources_of
from journeyman.sources.reader import FORMATS, Reader
from journeyman.sources.session_files import session_format
from journeyman.stages.ingest import _without_secrets, ingest

FUZZ = int(os.environ.get("JOURNEYMAN_FUZZ", "1"))
FIXTURES = Path(__file__).parents[1] / "fixtures"
SESSIONS = ("claude_code", "codex")
TRAJECTORIES = ("trajectory", "swe_agent", "openhands", "inspect_log")


def _lines(name: str) -> list[bytes]:
    """The fixture without its header, which names where its shape comes from."""
    header, *rows = (FIXTURES / f"{name}.jsonl").read_bytes().splitlines(keepends=True)
    assert header.startswith(b"# ")
    return rows


def _written(tmp_path: Path, name: str, data: bytes) -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _read(path: Path, config: DataConfig | None = None) -> list[Interaction | Rejected]:
    reader = Reader(config or DataConfig())
    return [record for row, _ in read_file(path) for record in reader.records(row, path.name)]


def _fixture(name: str, tmp_path: Path, config: DataConfig | None = None) -> list[Interaction | Rejected]:
    return _read(_written(tmp_path, "log.jsonl", b"".join(_lines(name))), config)


def _kept(records: list[Interaction | Rejected]) -> list[Interaction]:
    return [one for one in records if isinstance(one, Interaction)]


def _reasons(records: list[Interaction | Rejected]) -> dict[int, Reason]:
    return {one.line: one.reason.reason() for one in records if isinstance(one, Rejected)}


def _at(records: list[Interaction | Rejected], line: int) -> Interaction:
    (found,) = [one for one in _kept(records) if one.source == f"log.jsonl:{line}"]
    return found


def _turns(one: Interaction) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in one.messages]


def _codes(one: Interaction) -> set[str]:
    return {note.code for note in one.notes}


def _lines_of(*values: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


# Claude Code


def test_lines_of_one_message_are_one_answer_and_parallel_results_are_put_back(tmp_path: Path) -> None:
    found = _fixture("claude_code", tmp_path)
    first = _at(found, 9)
    assert (first.output, first.reasoning, first.finish_reason) == (
        "I read the parser.",
        "Read it first.",
        "tool_calls",
    )
    assert [call.name for call in first.output_calls] == ["Read", "Grep"] and first.log_id == "msg_1"
    assert (first.session, first.model) == ("5f0c2a4e-0000-4000-8000-000000000001", "claude-sonnet-4-5")
    assert first.succeeded is None and first.duration_ms == 10_000 and first.extra["usage"]["output_tokens"] == 20
    second = _at(found, 14)
    assert [role for role, _ in _turns(second)] == ["user", "assistant", "tool", "tool", "user"]
    assert [m.tool_call_id for m in second.messages if m.role == "tool"] == ["toolu_1", "toolu_2"]
    assert _turns(second)[-1] == ("user", "And add a test.")  # it was queued while the model worked


def test_a_branch_that_was_left_is_in_no_other_history(tmp_path: Path) -> None:
    found = _fixture("claude_code", tmp_path)
    left = _at(found, 16)
    assert "branch_left" in _codes(left) and _turns(left)[-1] == ("user", "Use a regular expression.")
    later = [one for one in _kept(found) if int(one.source.partition(":")[2]) > 16]
    assert later and all("regular expression" not in text for one in later for _, text in _turns(one))
    assert all("branch_left" not in _codes(one) for one in later)


def test_sub_agents_are_sessions_and_roles_of_their_own(tmp_path: Path) -> None:
    found = _fixture("claude_code", tmp_path)
    agents = [one for one in _kept(found) if one.session and one.session.endswith("/ag1")]
    assert [one.role for one in agents] == ["test-writer"] * 2
    assert _turns(agents[1]) == [("user", "Write a test for parse."), ("assistant", ""), ("tool", "File created")]
    assert {one.role for one in _kept(found) if one not in agents} == {"agent"}


def test_a_sub_agent_of_its_own_file_has_the_type_beside_it(tmp_path: Path) -> None:
    lines = [line for line in _lines("claude_code") if b'"agentId": "ag1", "type"' in line]
    path = _written(tmp_path, "subagents/agent-ag1.jsonl", b"".join(lines))
    assert {one.role for one in _kept(_read(path))} == {"sidechain"}
    _written(tmp_path, "subagents/agent-ag1.meta.json", b'{"agentType": "Explore"}')
    assert {one.role for one in _kept(_read(path))} == {"Explore"}
    (beside,) = _read(tmp_path / "subagents/agent-ag1.meta.json")
    assert isinstance(beside, Rejected) and beside.reason.code == "line_of_session"


def test_old_sidechains_without_an_id_are_told_apart_by_their_roots(tmp_path: Path) -> None:
    def line(type_: str, uuid: str, parent: str | None, content: Any, side: bool) -> dict[str, Any]:
        message = {"role": type_, "content": content} | ({"id": f"m-{uuid}"} if type_ == "assistant" else {})
        return {
            "type": type_,
            "uuid": uuid,
            "parentUuid": parent,
            "isSidechain": side,
            "sessionId": "s",
            "message": message,
        }

    task = {"type": "tool_use", "id": "t", "name": "Task", "input": {"prompt": "Look.", "subagent_type": "scout"}}
    data = _lines_of(
        line("user", "u1", None, "Do it.", False),
        line("assistant", "a1", "u1", [task], False),
        line("user", "11111111-s", None, "Look.", True),
        line("user", "22222222-s", None, "Something that no call asks for", True),
        line("assistant", "33333333-s", "11111111-s", [{"type": "text", "text": "Seen."}], True),
        line("assistant", "44444444-s", "22222222-s", [{"type": "text", "text": "Heard."}], True),
    )
    found = _kept(_read(_written(tmp_path, "log.jsonl", data)))
    assert [(one.output, one.role, one.session) for one in found] == [
        ("", "agent", "s"),
        ("Seen.", "scout", "s/11111111"),
        ("Heard.", "sidechain", "s/22222222"),
    ]


def test_failures_of_a_session_are_no_successes(tmp_path: Path) -> None:
    found = _fixture("claude_code", tmp_path)
    failed = {one.source: one.errors for one in _kept(found) if one.succeeded is False}
    assert failed == {
        "log.jsonl:24": ["API Error: 529 overloaded_error"],
        "log.jsonl:29": ["the user refused the call"],
        "log.jsonl:35": ["interrupted by the user"],
    }
    assert _at(found, 24).output is None
    assert all(one.succeeded is not True for one in _kept(found))
    assert not any("529" in text for one in _kept(found) for _, text in _turns(one))  # it is in no history


def test_an_image_costs_only_the_answer_that_is_to_it(tmp_path: Path) -> None:
    found = _fixture("claude_code", tmp_path)
    assert _reasons(found)[27] == NotText("what it answers", "'image'")
    later = _at(found, 29)
    assert "parts_not_kept" in _codes(later) and ("tool", "[image]") in _turns(later)


def test_a_damaged_line_is_rejected_alone_and_the_hole_is_said(tmp_path: Path) -> None:
    found = _fixture("claude_code", tmp_path)
    reasons = _reasons(found)
    assert reasons[32].code == "not_json" and reasons[33] == HistoryBroken("damaged_line")
    assert reasons[40] == UnknownType("a line", "hologram") and len(reasons) == 4
    texts = {one.line: one.text for one in found if isinstance(one, Rejected)}
    assert texts[32].startswith('{"parentUuid":"i1"') and '"x1"' in texts[33] and "hologram" in texts[40]
    assert "history_not_whole" in _codes(_at(found, 35))


def test_an_answer_whose_question_is_damaged_is_rejected_across_bookkeeping(tmp_path: Path) -> None:
    def line(type_: str, uuid: str, parent: str | None, **more: Any) -> dict[str, Any]:
        return {"type": type_, "uuid": uuid, "parentUuid": parent, "sessionId": "s", **more}

    def said(role: str, text: str) -> dict[str, Any]:
        return {"message": {"role": role, "content": text}}

    head = _lines_of(line("user", "u1", None, **said("user", "One?")), line("assistant", "a1", "u1", **said("a", "1")))
    hooks = _lines_of(line("progress", "p0", "u2"), *(line("progress", f"p{n}", f"p{n - 1}") for n in range(1, 3_000)))
    answer = _lines_of(line("assistant", "a2", "p2999", **said("assistant", "2")))
    good = _lines_of(line("user", "u2", "a1", **said("user", "Two?")))
    found = _read(_written(tmp_path, "log.jsonl", head + good + hooks + answer))
    assert [text for _, text in _turns(_kept(found)[1])] == ["One?", "1", "Two?"]
    found = _read(_written(tmp_path, "log.jsonl", head + good[:30] + b"\n" + hooks + answer))
    assert [one.output for one in _kept(found)] == ["1"] and _reasons(found)[3_004] == HistoryBroken("damaged_line")


def test_after_a_compaction_the_history_is_its_summary(tmp_path: Path) -> None:
    last = _at(_fixture("claude_code", tmp_path), 39)
    assert _turns(last) == [("user", "This session is being continued: parse now returns None.")]


def test_a_history_that_begins_elsewhere_is_rejected(tmp_path: Path) -> None:
    lines = _lines("claude_code")[12:18]
    reasons = _reasons(_read(_written(tmp_path, "log.jsonl", b"".join(lines))))
    assert set(reasons) == {2, 4, 6} and all(
        isinstance(one, HistoryBroken) and one.cause == "parent_missing" for one in reasons.values()
    )


def test_a_line_by_itself_says_that_the_file_is_needed(tmp_path: Path) -> None:
    for name, wanted in (("claude_code", "whole .jsonl"), ("codex", "whole .jsonl")):
        line = next(one for one in _lines(name) if b'"assistant"' in one)
        (found,) = Reader(DataConfig()).records(parse_line(line, 5), "log.jsonl")
        assert isinstance(found, Rejected) and wanted in found.reason.sentence()
    streamed = {"type": "assistant", "session_id": "s", "parent_tool_use_id": None, "message": {"type": "message"}}
    streamed["message"] |= {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]}  # type: ignore[operator]
    (found,) = Reader(DataConfig()).records(parse_line(json.dumps(streamed).encode(), 1), "log.jsonl")
    assert isinstance(found, Rejected) and "stream-json" in found.reason.sentence()
    item = {"type": "item.completed", "item": {"id": "item_0", "type": "agent_message", "text": "Hi"}}
    (found,) = Reader(DataConfig()).records(parse_line(json.dumps(item).encode(), 1), "log.jsonl")
    assert isinstance(found, Rejected) and "codex exec --json" in found.reason.sentence()


def test_what_claude_code_writes_itself_is_no_answer(tmp_path: Path) -> None:
    def line(type_: str, uuid: str, parent: str | None, text: str, model: str = "") -> dict[str, Any]:
        message = {"role": type_, "content": text, "model": model, "id": f"m-{uuid}"}
        return {"type": type_, "uuid": uuid, "parentUuid": parent, "sessionId": "s", "message": message}

    data = _lines_of(
        line("user", "u1", None, "Do it."),
        line("assistant", "a1", "u1", "API Error: Request was aborted.", "<synthetic>"),
        line("user", "u2", "a1", "Again."),
        line("assistant", "a2", "u2", "No response requested.", "<synthetic>"),
        line("user", "u3", "a2", "And now?"),
        line("assistant", "a3", "u3", "Done.", "claude"),
    )
    found = _read(_written(tmp_path, "log.jsonl", data))
    assert [(one.output, one.succeeded) for one in _kept(found)] == [(None, False), ("Done.", None)]
    assert _reasons(found)[4].code == "not_by_a_model"
    assert [role for role, _ in _turns(_kept(found)[1])] == ["user", "assistant", "user"]
    assert _turns(_kept(found)[1])[0] == ("user", "Do it.\nAgain.")


# Codex


def test_a_rollout_becomes_its_answers(tmp_path: Path) -> None:
    found = _fixture("codex", tmp_path)
    first = _at(found, 10)
    assert [role for role, _ in _turns(first)] == ["system", "system", "user", "user"]
    assert (first.output, first.reasoning, first.role) == ("I list them.", "**Listing**", "explorer")
    assert [(call.name, call.arguments) for call in first.output_calls] == [
        ("shell_command", {"command": "ls"}),
        ("update_plan", {}),
    ]
    assert (first.session, first.model, first.duration_ms) == ("019b-1", "gpt-5-codex", 2000)
    assert first.extra["usage"] == {"input_tokens": 40, "output_tokens": 10}
    patch = _at(found, 14)
    assert patch.output_calls[0].arguments == {"input": "*** Begin Patch\n*** End Patch"}
    assert [text for role, text in _turns(patch) if role == "tool"] == ["a.py", "Plan updated"]
    assert "parts_not_kept" in _codes(_at(found, 17))  # what the server searched is not logged
    assert _at(found, 22).output_calls[0].name == "local_shell"


def test_what_was_rolled_back_is_in_no_history(tmp_path: Path) -> None:
    found = _fixture("codex", tmp_path)
    assert [one.output for one in _kept(found) if "branch_left" in _codes(one)] == ["Undone."]
    assert all("Undo" not in text for _, text in _turns(_at(found, 22)))


def test_errors_images_compaction_and_holes_of_a_rollout(tmp_path: Path) -> None:
    found = _fixture("codex", tmp_path)
    failed = _at(found, 24)
    assert (failed.succeeded, failed.output) == (False, None) and "disconnected" in failed.errors[0]
    assert [text for _, text in _turns(_at(found, 26))][1:] == ["Show the history.", "Summary: one commit."]
    reasons = _reasons(found)
    assert reasons[28] == NotText("what it answers", "'input_image'") and reasons[39] == HistoryBroken("encrypted")
    assert reasons[34] == HistoryBroken("answered_not_understood", "line 33") and "history_not_whole" in _codes(
        _at(found, 36)
    )
    assert "history_not_whole" not in _codes(_at(found, 31))  # the damaged line 29 is only an event


def test_lines_that_a_newer_version_adds_cost_no_answer(tmp_path: Path) -> None:
    lines = _lines("codex")
    new = b'{"timestamp": "2026-01-05T10:00:02.000Z", "type": "world_state", "payload": {"a": 1}}\n'
    plain, found = (
        _fixture("codex", tmp_path),
        _read(_written(tmp_path, "log.jsonl", b"".join([*lines[:6], new, *lines[6:]]))),
    )
    assert [one.output for one in _kept(found)] == [one.output for one in _kept(plain)]
    assert _reasons(found)[7] == UnknownType("a line", "world_state") and "history_not_whole" in _codes(_at(found, 11))


def test_older_rollouts(tmp_path: Path) -> None:
    meta = {"id": "old-1", "timestamp": "2025-06-01T10:00:00Z", "instructions": "Be kind."}
    items = [
        {"record_type": "state"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "reasoning", "summary": [], "encrypted_content": None},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello."}]},
    ]
    wanted = [("system", "Be kind."), ("user", "Hi")]
    for name, data in (
        ("rollout.jsonl", _lines_of(meta, *items)),
        ("rollout.json", json.dumps({"session": meta, "items": items}, indent=2).encode()),
    ):
        (one,) = _kept(_read(_written(tmp_path, name, data)))
        assert (_turns(one), one.output, one.session) == (wanted, "Hello.", "old-1")


def test_instructions_that_the_history_repeats_are_given_once(tmp_path: Path) -> None:
    line = {"timestamp": "2026-01-05T10:00:00Z"}

    def said(role: str, text: str) -> dict[str, Any]:
        content = [{"type": "input_text", "text": text}]
        return {**line, "type": "response_item", "payload": {"type": "message", "role": role, "content": content}}

    meta = {**line, "type": "session_meta", "payload": {"id": "s", "instructions": "Use tabs."}}
    data = _lines_of(meta, said("user", "<user_instructions>Use tabs.</user_instructions>"), said("assistant", "Yes."))
    (one,) = _kept(_read(_written(tmp_path, "log.jsonl", data)))
    assert [role for role, _ in _turns(one)] == ["user"]


# files


def test_a_session_is_told_by_its_beginning_wherever_that_ends(tmp_path: Path) -> None:
    for name in SESSIONS:
        data = b"".join(_lines(name))
        assert session_format(data) == session_format(b"\xef\xbb\xbf" + data) == name
        lines = [json.loads(line) for line in _lines(name)[:5]]
        assert session_format(json.dumps(lines, indent=1).encode()) == name
    long = _lines("claude_code")[2].replace(b"Why does", b"x" * 20_000)
    assert session_format(long[:4096]) == "claude_code"
    assert session_format(_lines("codex")[0][:200]) == "codex"
    for path in FIXTURES.iterdir():
        if path.stem not in SESSIONS:
            assert session_format(path.read_bytes().partition(b"\n")[2][: 1 << 16]) is None, path.name
    quoted = json.dumps({"messages": [{"role": "user", "content": '{"parentUuid":null,"type":"user"}'}]})
    assert session_format(quoted.encode()[:60]) is None and session_format(quoted.encode()) is None


def test_sessions_are_read_from_compressed_files_and_lists(tmp_path: Path) -> None:
    plain = _kept(_fixture("codex", tmp_path))
    zipped = _written(tmp_path, "log.jsonl.gz", gzip.compress(b"".join(_lines("codex"))))
    assert [one.output for one in _kept(_read(zipped))] == [one.output for one in plain]
    whole = [json.loads(line) for line in _lines("codex") if line.endswith(b"}\n") and b'"agent_mess' not in line[-40:]]
    listed = _written(tmp_path, "log.json", json.dumps(whole).encode())
    assert [one.output for one in _kept(_read(listed))][:5] == [one.output for one in plain][:5]


def test_a_session_beyond_the_bound_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_SESSION_BYTES", 2_000)
    (found,) = _fixture("claude_code", tmp_path)
    assert isinstance(found, Rejected) and found.reason.code == "session_too_long"


def test_ingest_goes_on_after_a_session(tmp_path: Path) -> None:
    paths = [_written(tmp_path, f"{day}/log.jsonl", b"".join(_lines("codex"))) for day in ("a", "b")]
    assert [row for row, _ in read_file(paths[0], 1)] == []
    made = ingest(sources_of(paths), DataConfig(), RedactConfig(), tmp_path / "out", SilentReporter())
    rows = list(read_rows(tmp_path / "out" / "interactions.jsonl.zst", Interaction))
    assert made.kept == len(rows) == len({row.id for row in rows})


def test_a_format_that_is_set_is_not_overruled_in_silence(tmp_path: Path) -> None:
    (found,) = _fixture("codex", tmp_path, DataConfig(format="openai_chat"))
    assert isinstance(found, Rejected) and found.reason.reason() == OtherFormatSet("codex")
    assert len(_kept(_fixture("codex", tmp_path, DataConfig(format="codex")))) > 5


def test_roles_can_be_named_by_what_the_session_says(tmp_path: Path) -> None:
    assert {one.role for one in _kept(_fixture("claude_code", tmp_path, DataConfig(role_field="gitBranch")))} == {
        "main"
    }


def test_long_results_are_cut_by_rule_and_long_histories_refused(tmp_path: Path) -> None:
    long = "a" * 300 + "b" * 300
    call = {"id": "k", "type": "function", "function": {"name": "read", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "Read."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "k", "content": long},
        {"role": "assistant", "content": "Read."},
    ]
    for row in ({"traj": turns, "reward": 1}, {"messages": turns}):  # whole trajectories and other formats alike
        path = _written(tmp_path, "log.jsonl", _lines_of(row))
        whole = _kept(_read(path))[1]
        assert whole.messages[2].content == long and "tool_results_cut" not in _codes(whole)
        first, second = _kept(_read(path, DataConfig(cut_tool_results=100)))
        text = second.messages[2].content
        assert text.startswith("a" * 75 + "\n[… 500 characters cut …]\n" + "b" * 25) and len(text) < 140
        assert "tool_results_cut" in _codes(second) and "tool_results_cut" not in _codes(first)
    path = _written(tmp_path, "log.jsonl", _lines_of({"traj": [*turns, *turns], "reward": 1}))
    found = _read(path, DataConfig(max_history=1_000))
    assert [type(one) for one in found] == [Interaction] * 3 + [Rejected]
    assert isinstance(found[3], Rejected) and found[3].reason.code == "history_too_long"
    assert len(_kept(_read(path, DataConfig(max_history=1_000, cut_tool_results=100)))) == 4
    long_line = _lines("claude_code")[7].replace(b"def parse", b"def " + b"x" * 5_000)
    session = b"".join([*_lines("claude_code")[:7], long_line, *_lines("claude_code")[8:]])
    path = _written(tmp_path, "log.jsonl", session)
    assert _reasons(_read(path, DataConfig(max_history=4_000)))[14] == HistoryTooLong(4_000)
    cut = _kept(_read(path, DataConfig(max_history=4_000, cut_tool_results=200)))
    assert "tool_results_cut" in _codes(next(one for one in cut if one.source == "log.jsonl:14"))


# trajectories


def test_the_reward_is_the_outcome_of_all_turns(tmp_path: Path) -> None:
    found = _fixture("trajectory", tmp_path)
    by_line = {line: [one for one in _kept(found) if one.source == f"log.jsonl:{line}"] for line in (1, 2, 4, 5, 6)}
    assert [(one.output, one.succeeded) for one in by_line[1]] == [
        ("Your user id?", True),
        ("", True),
        ("Cancelled.", True),
    ]
    assert len({one.session for one in by_line[1]}) == 1 and by_line[1][0].session != by_line[2][0].session
    assert by_line[1][1].output_calls[0].arguments == {"id": "u_1"}
    assert [one.succeeded for one in by_line[2]] == [False] and by_line[2][0].errors == ["reward 0, success from 1"]
    assert _reasons(found)[3] == FieldEmpty("traj", "context too long")
    assert by_line[4][0].succeeded is None and "unknown_status" in _codes(by_line[4][0])
    assert by_line[5][0].errors == ["resolved false"]
    config = DataConfig(success_field="reward", success_at_least=7)
    assert _at(_fixture("trajectory", tmp_path, config), 4).succeeded is True


@pytest.mark.parametrize(
    ("reward", "right"),
    [(1, True), (1.0, True), ("1.0", True), (True, True), (0, False), (0.0, False), ("0", False), (0.5, False),
     (-1, False), (0.9999999, True), (7.5, None), ("7.5", None), ("high", None), ([0, 1], None), (None, None),
     ({"reward": 1.0}, True), ({"reward": 0}, False)],
)  # fmt: skip
def test_only_a_whole_reward_is_a_success(reward: Any, right: bool | None) -> None:
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    line = json.dumps({"traj": turns, "reward": reward}).encode()
    (one,) = _kept(Reader(DataConfig()).records(parse_line(line, 1), "log.json"))
    assert one.succeeded is right and (("unknown_status" in _codes(one)) is (right is None and reward is not None))


def test_what_the_simulated_user_does_is_not_the_agents(tmp_path: Path) -> None:
    found = [one for one in _kept(_fixture("trajectory", tmp_path)) if one.source == "log.jsonl:6"]
    assert [(one.output, one.succeeded, one.model) for one in found] == [
        ("Toggle flight mode.", True, "gpt-4.1"),
        ("", True, "gpt-4.1"),
        ("Your line is active.", True, "gpt-4.1"),
    ]
    assert _turns(found[2])[-1] == ("tool", "active") and found[2].messages[-1].tool_call_id == "k2"
    assert all("toggle" not in str(one.messages) and "turns_not_kept" in _codes(one) for one in found)


def test_swe_agent_trajectories(tmp_path: Path) -> None:
    found = _fixture("swe_agent", tmp_path)
    summary = [(one.id, one.role, one.output, one.succeeded) for one in _kept(found)]
    assert summary == [
        ("log.jsonl:1#0", "agent", "I look.", None),  # a submission is no success
        ("log.jsonl:1#1", "agent", "Submit.", None),
        ("log.jsonl:2", "reviewer", "I look.", False),
        ("log.jsonl:4#0", "agent", "I look.", True),
        ("log.jsonl:4#1", "agent", "Done.", True),
        ("log.jsonl:5", "agent", "```bash\nls\n```", False),
    ]
    second = _kept(found)[1]
    assert "lines omitted" in second.messages[-1].content  # as it was sent, not as it was kept
    assert second.messages[-1].tool_call_id == second.messages[-2].tool_calls[0].id == "call_1"
    assert _reasons(found)[3].code == "not_logged"


def test_a_traj_file_is_a_document(tmp_path: Path) -> None:
    row = json.loads(_lines("swe_agent")[0])
    path = _written(tmp_path, "runs/repo__1.traj", json.dumps(row, indent=2).encode())
    assert len(_kept(_read(path))) == 2 and files.log_files(tmp_path, "runs") == [path]


def test_openhands_actions_of_one_response_are_one_answer(tmp_path: Path) -> None:
    found = _fixture("openhands", tmp_path)
    first, last, newer, newest = _kept(found)
    assert [call.arguments for call in first.output_calls] == [{"command": "ls"}, {"command": "pwd"}]
    assert [role for role, _ in _turns(last)] == ["system", "user", "assistant", "tool", "tool"]
    assert (first.succeeded, first.model, first.finish_reason) == (True, "claude-x", "tool_calls")
    assert first.tools[0]["function"]["name"] == "execute_bash" and first.session == last.session
    assert [call.id for call in newer.output_calls] == ["k1", "k2"] and newer.reasoning == "hm"
    assert _turns(newest)[-1] == ("tool", "pwd failed") and newest.errors == ["AgentStuck"]
    reasons = [one.reason.reason() for one in found if isinstance(one, Rejected)]
    assert reasons[0] == HistoryBroken("condensed") and reasons[1].code == "not_logged"


def test_a_file_of_openhands_events_is_a_session(tmp_path: Path) -> None:
    events = json.loads(_lines("openhands")[0])["history"]
    for data in (json.dumps(events, indent=1).encode(), _lines_of(*events)):
        found = _kept(_read(_written(tmp_path, "log.json" if data[:1] == b"[" else "log.jsonl", data)))
        assert [one.output for one in found] == ["I look twice.", ""] and found[0].succeeded is None
        assert found[0].source.endswith(":4") and found[1].source.endswith(":8")
    cut = _lines_of(*events[:4]) + b'{"id": 4, "sour\n' + _lines_of(*events[5:])
    found_cut = _read(_written(tmp_path, "log.jsonl", cut))
    assert [one.output for one in _kept(found_cut)] == ["I look twice."]
    assert _reasons(found_cut)[8] == HistoryBroken("damaged_before") and 5 in _reasons(found_cut)


def test_inspect_scores_are_the_outcome(tmp_path: Path) -> None:
    found = _fixture("inspect_log", tmp_path)
    summary = [(one.output, one.succeeded, one.errors) for one in _kept(found)]
    assert summary == [
        ("I look.", True, []),
        ("12", True, []),
        ("99", False, ["scorer match: I"]),
        ("3", None, []),
        ("Hm", False, ["stopped by its token limit"]),
    ]
    first, second, _, unsure, _ = _kept(found)
    assert [text for _, text in _turns(second)] == ["Example: K-1?", "1", "K-17?", "I look.", "12 pieces"]
    assert (first.role, first.model, first.reasoning) == ("clerk", "gpt-4o-mini", "Look it up.")
    assert first.output_calls[0].arguments == {"part": "K-17"} and first.tools[0]["function"]["name"] == "lookup"
    assert (first.finish_reason, second.finish_reason, second.duration_ms) == (None, "length", 1500)
    assert first.session == second.session == "run-1/1/1" and unsure.notes[0].details["found"] == "0.7"
    reasons = [one.reason for one in found if isinstance(one, Rejected)]
    assert [one.code for one in reasons] == ["not_text", "no_answer", "not_logged"]
    assert "sample 6" in reasons[1].sentence() and "rate limit" in reasons[1].sentence()
    config = DataConfig(success_field="scores.graded.value", success_at_least=0.5)
    assert [one.succeeded for one in _kept(_fixture("inspect_log", tmp_path, config))] == [
        True,
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("value", "right"),
    [("C", True), ("I", False), ("P", False), ("N", False), (1, True), (0.0, False), (True, True), ("correct", True),
     ("incorrect", False), (0.5, None), (7, None), ({"a": 1}, None), (["C"], None), ("B+", None)],
)  # fmt: skip
def test_a_score_that_nobody_can_know_is_noted(value: Any, right: bool | None) -> None:
    sample = {"id": 1, "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]}
    row = {"version": 2, "status": "success", "eval": {}, "samples": [{**sample, "scores": {"s": {"value": value}}}]}
    (one,) = _kept(Reader(DataConfig()).records(parse_line(json.dumps(row).encode(), 1), "log.json"))
    assert one.succeeded is right and (("unknown_status" in _codes(one)) is (right is None))


def test_the_binary_inspect_log_says_what_to_do(tmp_path: Path) -> None:
    path = _written(tmp_path, "2026-02-04_parts.eval", b"PK\x03\x04 binary")
    assert files.log_files(tmp_path, ".") == [path]
    (found,) = _read(path)
    assert isinstance(found, Rejected) and "inspect log convert --to json" in found.reason.sentence()
    assert list(read_file(path, 1)) == []


# nothing is lost, and nothing that a log holds ends the reading


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_a_trajectory_is_claimed_by_its_own_format(name: str) -> None:
    for line in _lines(name):
        row = parse_line(line, 1).value
        assert row is not None and next(f.name for f in FORMATS.values() if f.claims(row)) == name


def test_every_answer_of_a_claude_session_is_kept_or_rejected_at_its_line(tmp_path: Path) -> None:
    lines: dict[str, int] = {}
    for number, line in enumerate(_lines("claude_code"), start=1):
        row = parse_line(line, number).value or {}
        if row.get("type") == "assistant":
            lines[row["message"]["id"]] = number
    found = _fixture("claude_code", tmp_path)
    at = Counter([*(int(one.source.partition(":")[2]) for one in _kept(found)), *_reasons(found)])
    assert set(lines.values()) <= set(at) and max(at.values()) == 1


def test_every_call_and_result_of_a_session_is_in_some_row(tmp_path: Path) -> None:
    for name, marks in (("claude_code", "toolu_"), ("codex", "c")):
        text = b"".join(_lines(name)).decode()
        key = '"tool_use_id": "' if name == "claude_code" else '"call_id": "'
        ids = {part.partition('"')[0] for part in text.split(key)[1:]}
        rows = _kept(_fixture(name, tmp_path))
        answered = {message.tool_call_id for one in rows for message in one.messages if message.role == "tool"}
        asked = {call.id for one in rows for call in one.output_calls}
        asked |= {call.id for one in rows for message in one.messages for call in message.tool_calls}
        assert ids and all(id_.startswith(marks) for id_ in ids) and ids <= answered & asked


def _checked(records: list[Interaction | Rejected], lines: int) -> None:
    assert records
    for record in records:
        if isinstance(record, Rejected):
            assert record.reason.sentence() and record.reason.code != "unreadable" and 1 <= record.line <= lines
        else:
            assert 1 <= int(record.source.rpartition(":")[2]) <= lines
            assert Interaction.model_validate_json(record.model_dump_json(exclude_defaults=True)) == record
            assert any(message.role in ("user", "tool") for message in record.messages)
    ids = [one.id for one in _kept(records)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", [*SESSIONS, "openhands"])
@given(seed=st.integers(0, 2**32), new=JSON)
@settings(max_examples=150 * FUZZ, deadline=None)
def test_a_damaged_session_is_read_or_rejected_with_reasons(name: str, seed: int, new: Any) -> None:
    random_ = random.Random(seed)
    if name == "openhands":
        lines = [json.dumps(one).encode() for one in json.loads(_lines(name)[seed % 2])["history"]]
    else:
        lines = [line.rstrip() for line in _lines(name)]
    for _ in range(random_.randint(1, 5)):
        place = random_.randrange(len(lines))
        match random_.randrange(4):
            case 0:
                lines[place] = lines[place][: random_.randrange(1, 200)]
            case 1:
                lines[place : place + 1] = [lines[place]] * random_.randint(1, 2)
            case _:
                value = parse_line(lines[place], 1).value
                if value is not None:
                    damaged = damage(value, random_, new)
                    lines[place] = json.dumps(damaged).encode()
    row = Row(1, None, "", "", b"\n".join(lines), name)
    _checked(Reader(DataConfig(max_history=random_.choice((1_000, 400_000)))).records(row, "log.jsonl"), len(lines))


@pytest.mark.parametrize("name", TRAJECTORIES)
@given(seed=st.integers(0, 2**32), new=JSON)
@settings(max_examples=150 * FUZZ, deadline=None)
def test_a_damaged_trajectory_is_read_or_rejected_with_a_reason(name: str, seed: int, new: Any) -> None:
    random_ = random.Random(seed)
    row = json.loads(random_.choice(_lines(name)))
    for _ in range(random_.randint(1, 4)):
        row = damage(row, random_, new)
    for config in (DataConfig(), DataConfig(format=name)):
        _checked(Reader(config).records(parse_line(json.dumps(row).encode(), 1), "log.jsonl"), 1)


@pytest.mark.parametrize("name", [*SESSIONS, *TRAJECTORIES])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=40 * FUZZ, deadline=None)
def test_no_secret_of_a_session_survives(name: str, seed: int) -> None:
    random_ = random.Random(seed)
    secrets = ("amy@corp.io", "AKIAQYLPMN5HFIQR7XYZ")
    lines = _lines(name)
    place = random_.choice([n for n, line in enumerate(lines) if parse_line(line, 1).value is not None])
    lines[place] = json.dumps(_with_secrets(json.loads(lines[place]), random_, secrets)).encode() + b"\n"
    reader = Reader(DataConfig())
    rows = [Row(1, None, "", lines[0][:200].decode(), b"".join(lines), name)]
    if name in TRAJECTORIES:
        rows = [parse_line(lines[place], 1)]
    for row in rows:
        for record in reader.records(row, "log.jsonl"):
            found = Redactor()
            kept = found.interaction(record) if isinstance(record, Interaction) else _without_secrets(record, found)
            text = kept.model_dump_json()
            assert not any(secret in text for secret in secrets), text


def _with_secrets(value: Any, random_: random.Random, secrets: tuple[str, str]) -> Any:
    if isinstance(value, dict) and value:
        key = random_.choice(list(value))
        return {**value, key: _with_secrets(value[key], random_, secrets)}
    if isinstance(value, list) and value:
        place = random_.randrange(len(value))
        return [*value[:place], _with_secrets(value[place], random_, secrets), *value[place + 1 :]]
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.dumps(_with_secrets(json.loads(value), random_, secrets))
        except ValueError:
            pass
    return f"{value} {secrets[0]} {secrets[1]} " if isinstance(value, str) else value
