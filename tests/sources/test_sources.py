"""Every log format, from fixtures written after its documentation; containers; and that nothing is lost."""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import log_row
from damage import JSON, damage
from journeyman.artifacts import read_rows
from journeyman.config import DataConfig, RedactConfig
from journeyman.errors import InputError, JourneymanError, UsageError
from journeyman.protocols import SilentReporter
from journeyman.records import Interaction, Rejected
from journeyman.redaction.redactor import Redactor
from journeyman.sources.files import log_files, parse_line, read_file, skipped_files, sources_of
from journeyman.sources.reader import FORMATS, Reader
from journeyman.stages.ingest import ingest

FUZZ = int(os.environ.get("JOURNEYMAN_FUZZ", "1"))  # `make fuzz` tries many times more
FIXTURES = Path(__file__).parents[1] / "fixtures"
PARIS = {"city": "Paris"}
# format → for each row of the fixture what comes out of it, in order: (role, last question, answer, calls) or the place
# within the row and the code of the reason
EXPECTED: dict[str, list[Any]] = {
    "openai_chat": [
        ("researcher", '{"celsius": 14}', "14 degrees.", []),
        ("coder", "Weather in Oslo?", "", [("get_weather", {"city": "Oslo"})]),
        ("agent", "Two ways?", "One.", []),
        ("agent", "Two ways?", "Two", []),
        "no_request",
        ("agent", "Weather in Rome?", "", [("get_weather", {"city": "Rome"})]),
        ("agent", "Hi", None, []),
        ("agent", "Do harm", "I can't help with that.", []),
    ],
    "openai_finetune": [
        ("agent", "Be sarcastic.", "Paris, as if nobody knew.", []),
        ("agent", "Weather in Paris?", "", [("get_weather", PARIS)]),
        ("agent", '{"celsius": 14}', "14 degrees.", []),
        "no_answer",
    ],
    "anthropic": [
        ("agent", "And?", "14 degrees.", []),
        ("agent", "Count.", "1, 2, 3", []),
        ("agent", "Count.", None, []),
        "not_text",
    ],
    "sharegpt": [
        ("agent", "Weather in Paris?", "", [("get_weather", PARIS)]),
        ("agent", "14", "14 degrees.", []),
        "unknown_role",
    ],
    "alpaca": [("agent", "Translate.\nHello", "Bonjour", []), ("agent", "2+2=", " 4", []), "field_empty"],
    "langfuse": [
        ("tester", "Weather?", "", [("get_weather", PARIS)]),
        "not_a_model_call",
        ("agent", "Hi", "Hello.", []),
        "observations[0]: not_a_model_call",
        ("clerk", "Weather?", "", [("get_weather", PARIS)]),
        ("clerk", "rainy", "Rainy.", []),
        ("agent", "Weather?", "", [("get_weather", PARIS)]),
        ("agent", "Weather?", "", [("get_weather", PARIS)]),
        ("agent", "Hi", "Hello.", []),
    ],
    "litellm": [
        ("coder", "Weather?", "", [("get_weather", PARIS)]),
        "not_logged",
        "not_a_model_call",
        ("agent", "Hi", "Hello.", []),
    ],
    "otel": [
        ("researcher", "rainy, 57F", "Rainy.", []),
        "not_a_model_call",
        ("agent", "Weather?", "", [("get_weather", PARIS)]),
        ("agent", "Hi", "Hello.", []),
        ("agent", "Hi", "Hello.", []),
        "not_logged",
        "not_a_model_call",
        ("agent", "Weather?", "", [("get_weather", PARIS)]),
        ("agent", "Hi", "Hello.", []),
        ("agent", "Weather?", "", [("get_weather", PARIS), ("get_weather", {"city": "Oslo"})]),
        ("agent", "Hi", "Hello.", []),
        ("agent", "Hi", "Hey.", []),
        ("clerk", "Hi", "Hello.", []),
    ],
    "recorded": [
        ("clerk", "Hi", "Hello.", []),
        ("clerk", "Weather?", "", [("get_weather", PARIS)]),
        ("gpt-x", "Hi", "Hello.", []),
        ("gpt-x", "cut", None, []),
        ("gpt-x", "busy", None, []),
        "not_a_model_call",
        "not_logged",
    ],
    "gateways": [
        ("clerk", "Weather?", "", [("get_weather", PARIS)]),
        ("clerk", "Hi", "Hello.", []),
        ("agent", "Hi", None, []),
        ("agent", "Hi", "Hello.", []),
        ("agent", "Hi", "blocked", []),
    ],
    "trl": [("agent", "Hi", "Hello.", [])] * 4 + [("agent", "Hi", "No.", []), "not_an_answer"],
    "xlam": [("agent", "Weather in Paris?", "", [("get_weather", PARIS)]), "wrong_type"],
    "mlflow": [
        "spans[0]: not_a_model_call",
        ("clerk", "Weather?", "", [("get_weather", PARIS)]),
        ("agent", "Hi", "Hel", []),
        "not_logged",
    ],
    "braintrust": [
        ("clerk", "Weather?", "", [("get_weather", PARIS)]),
        "not_a_model_call",
        ("agent", "Hi", "Hello.", []),
    ],
    "weave": [
        ("clerk", "Weather?", "", [("get_weather", PARIS)]),
        "not_a_model_call",
        ("agent", "Hi", "Hello.", []),
        "not_logged",
    ],
    "langsmith": [
        ("coordinator", "Weather?", "", [("get_weather", PARIS)]),
        "not_a_model_call",
        ("agent", "Hi", "Hello.", []),
        ("agent", "Hi", "Hello.", []),
        "post[1]: not_a_model_call",
        "patch[1]: not_logged",
        ("agent", "14", "And Paris.", [("get_weather", PARIS)]),
        "not_a_model_call",
        ("agent", "Hi", "Hel", []),
    ],
}  # fmt: skip


def _lines(name: str) -> list[bytes]:
    """The fixture without its header, which names the documentation."""
    header, *rows = (FIXTURES / name).read_bytes().splitlines(keepends=True)
    assert header.startswith(b"# ")
    return rows


def _read(path: Path, config: DataConfig | None = None) -> list[Interaction | Rejected]:
    reader = Reader(config or DataConfig())
    return [record for row, _ in read_file(path) for record in reader.records(row, path.name)]


def _written(tmp_path: Path, name: str, data: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def _summary(record: Interaction | Rejected) -> Any:
    if isinstance(record, Rejected):
        at = record.reason.details.get("at")
        return f"{at}: {record.reason.code}" if at else record.reason.code
    calls = [(call.name, call.arguments) for call in record.output_calls]
    return record.role, record.messages[-1].content, record.output, calls


@pytest.mark.parametrize("name", EXPECTED)
def test_a_format_is_detected_and_read(name: str, tmp_path: Path) -> None:
    path = _written(tmp_path, "log.jsonl", b"".join(_lines(f"{name}.jsonl")))
    found = [_summary(record) for record in _read(path)]
    assert len(found) == len(EXPECTED[name])
    for got, wanted in zip(found, EXPECTED[name], strict=True):
        assert got == wanted
    assert found == [_summary(record) for record in _read(path, DataConfig(format=name))]
    for line in _lines(f"{name}.jsonl"):
        row = parse_line(line, 1).value
        assert row is not None and next(f.name for f in FORMATS.values() if f.claims(row)) == name


def test_every_format_has_a_fixture() -> None:
    assert {path.stem for path in FIXTURES.iterdir()} | {"interactions"} == set(FORMATS)


def _first(name: str, tmp_path: Path, index: int = 0) -> Interaction:
    record = _read(_written(tmp_path, "log.jsonl", b"".join(_lines(f"{name}.jsonl"))))[index]
    assert isinstance(record, Interaction)
    return record


def test_fields_beside_the_texts(tmp_path: Path) -> None:
    chat = _first("openai_chat", tmp_path)
    assert (chat.log_id, chat.session, chat.model, chat.max_tokens) == ("chatcmpl-1", "s-1", "gpt-4o-2024-08-06", 200)
    assert (chat.duration_ms, chat.finish_reason, chat.timestamp) == (812, "stop", "2025-03-10T01:25:52+00:00")
    assert chat.extra["request"]["temperature"] == 0.2 and chat.extra["response"]["usage"]["total_tokens"] == 23
    assert _first("openai_chat", tmp_path, 3).finish_reason == "length"
    assert _first("openai_chat", tmp_path, 3).log_id == "request-3#1"
    failed = _first("openai_chat", tmp_path, 6)
    assert not failed.succeeded and failed.errors == ["Rate limit reached"]
    assert _first("openai_chat", tmp_path, 7).finish_reason == "refusal"
    claude = _first("anthropic", tmp_path)
    assert (claude.reasoning, claude.finish_reason, claude.provider) == ("Easy.", "stop", "anthropic")
    assert [m.role for m in claude.messages] == ["system", "user", "assistant", "tool", "user"]
    assert claude.tools[0]["function"]["parameters"]["properties"] == {"city": {"type": "string"}}
    assert _first("anthropic", tmp_path, 1).finish_reason == "length"
    fuse = _first("langfuse", tmp_path)
    assert (fuse.duration_ms, fuse.max_tokens, fuse.session) == (2000, 300, "sess-1")
    assert _first("langfuse", tmp_path, 2).errors == ["overloaded"]
    lite = _first("litellm", tmp_path)
    assert (lite.duration_ms, lite.max_tokens, lite.provider, lite.session) == (2000, 64, "openai", "tr")
    span = _first("otel", tmp_path)
    assert (span.reasoning, span.session, span.duration_ms, span.max_tokens) == ("hm", "conv-1", 1500, 200)
    assert [m.role for m in span.messages] == ["system", "user", "assistant", "tool"]
    run = _first("langsmith", tmp_path)
    assert (run.model, run.max_tokens, run.session, run.finish_reason) == ("gpt-4o", 99, "th-1", "tool_calls")
    history = _first("alpaca", tmp_path)
    assert [m.role for m in history.messages] == ["system", "user", "assistant", "user"]
    assert [r.session for r in _read(tmp_path / "log.jsonl")[:1]] == [None]


def test_conversations_survive_the_round_trip(tmp_path: Path) -> None:
    """Through the record, its file and back into OpenAI's shape: turns, calls, results; arguments encoded once."""
    line = _lines("openai_chat.jsonl")[0]
    path = _written(tmp_path, "log.jsonl", line)
    ingest(sources_of([path]), DataConfig(), RedactConfig(), tmp_path, SilentReporter())
    (row,) = read_rows(tmp_path / "interactions.jsonl.zst", Interaction)
    logged = json.loads(line)["request"]
    expected = [{**turn, "content": turn["content"] or ""} for turn in logged["messages"]]
    assert [message.as_openai() for message in row.messages] == expected
    assert row.messages[2].tool_calls[0].arguments == PARIS
    assert row.messages[2].as_chat()["tool_calls"][0]["function"]["arguments"] == PARIS
    assert row.tools == logged["tools"]


def test_doubly_encoded_arguments_are_decoded(tmp_path: Path) -> None:
    row = json.loads(_lines("openai_chat.jsonl")[1])
    row["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] = json.dumps(json.dumps({"city": "Oslo"}))
    (read,) = _read(_written(tmp_path, "log.jsonl", json.dumps(row).encode()))
    assert isinstance(read, Interaction) and read.output_calls[0].arguments == {"city": "Oslo"}
    row["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] = "{broken"
    (read,) = _read(_written(tmp_path, "log.jsonl", json.dumps(row).encode()))
    assert isinstance(read, Interaction) and read.output_calls[0].arguments == "{broken"


def test_a_table_with_a_column_map(tmp_path: Path) -> None:
    columns = {"prompt": "question", "answer": "reply", "role": "who", "duration_ms": "seconds_ms"}
    path = _written(tmp_path, "log.csv", b"".join(_lines("table.csv")))
    found = [_summary(record) for record in _read(path, DataConfig(columns=columns))]
    assert found[:2] == [("coder", "Sum, please: 1+1", "2", []), ("tester", 'A "quoted" word', "two\nlines", [])]
    assert found[2:] == ["column_missing", "cell_count"]
    unmapped = _read(path)
    assert isinstance(unmapped[0], Rejected) and "question" in unmapped[0].reason.sentence()
    with pytest.raises(UsageError, match=r"data\.columns\.reply"):
        Reader(DataConfig(columns={"reply": "x"}))
    with pytest.raises(UsageError, match=r"data\.format = 'xml'"):
        Reader(DataConfig(format="xml"))


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [json.loads(line) for line in _lines("langsmith.jsonl")]
    table = {
        key: [json.dumps(r[key]) if isinstance(r.get(key), dict | list) else r.get(key) for r in rows]
        for key in rows[0]
    }
    parquet.write_table(pyarrow.table(table), tmp_path / "runs.parquet")
    found = [_summary(record) for record in _read(tmp_path / "runs.parquet")]
    assert found[0] == EXPECTED["langsmith"][0] and found[2] == EXPECTED["langsmith"][2]
    broken = _written(tmp_path, "broken.parquet", b"PAR1 nothing")
    (damaged,) = _read(broken)
    assert isinstance(damaged, Rejected) and damaged.reason.code == "parquet_damaged"


def test_compressed_files_documents_folders_and_globs(tmp_path: Path) -> None:
    lines = b"".join(json.dumps(log_row(n)).encode() + b"\n" for n in range(5))
    rows = [json.loads(line) for line in lines.splitlines()]
    (tmp_path / "deep").mkdir()
    _written(tmp_path, "a.jsonl", lines)
    _written(tmp_path, "b.jsonl.gz", gzip.compress(lines))
    _written(tmp_path, "deep/c.jsonl.zst", zstandard.compress(lines[:200]) + zstandard.compress(lines[200:]))
    _written(tmp_path, "d.json", json.dumps(rows, indent=2).encode())
    _written(tmp_path, "e.json", json.dumps({"data": rows, "meta": {}}, indent=2).encode())
    _written(tmp_path, "notes.md", b"no log")
    files = log_files(tmp_path, ".")
    assert [path.name for path in files] == ["a.jsonl", "b.jsonl.gz", "d.json", "c.jsonl.zst", "e.json"]
    for path in files:
        assert [r.log_id for r in _read(path) if isinstance(r, Interaction)] == [f"row-{n}" for n in range(5)], (
            path.name
        )
    assert len(log_files(tmp_path, "**/*.zst")) == 1
    with pytest.raises(UsageError, match="matches no file"):
        log_files(tmp_path, "*.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no log file in this folder"):
        log_files(tmp_path, "empty")
    cut = _written(tmp_path, "cut.jsonl.gz", gzip.compress(lines)[:-20])
    assert skipped_files(tmp_path, ["."]) == {"notes.md": 6}
    *whole, last = _read(cut)
    assert isinstance(last, Rejected) and last.reason.details["rows"] == len(whole)


def test_an_overlong_line_is_refused_and_the_next_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journeyman.sources.rows.MAX_ROW_BYTES", 2_000)
    monkeypatch.setattr("journeyman.sources.documents.CHUNK", 500)
    good = json.dumps(log_row(1)).encode()
    path = _written(tmp_path, "log.jsonl", good + b"\n" + b"x" * 9_000 + b"\n" + good + b"\n")
    found = _read(path)
    assert [type(record) for record in found] == [Interaction, Rejected, Interaction]
    assert isinstance(found[1], Rejected) and found[1].line == 2 and found[1].reason.code == "row_too_long"


def test_the_role_can_be_named_by_a_field(tmp_path: Path) -> None:
    row = {"prompt": "a", "answer": "b", "meta": {"who": "tester"}}
    path = _written(tmp_path, "log.jsonl", json.dumps(row).encode())
    (read,) = _read(path, DataConfig(role_field="meta.who"))
    assert read.role == "tester"  # type: ignore[union-attr]
    (read,) = _read(path, DataConfig(default_role="helper"))
    assert read.role == "helper"  # type: ignore[union-attr]


ROWS = {name: [json.loads(line) for line in _lines(f"{name}.jsonl")] for name in EXPECTED}
ROWS["interactions"] = [log_row(n) for n in range(3)]


@pytest.mark.parametrize("name", ROWS)
@given(seed=st.integers(0, 2**32), new=JSON)
@settings(max_examples=250 * FUZZ, deadline=None)
def test_a_damaged_row_is_read_or_rejected_with_a_reason(name: str, seed: int, new: Any) -> None:
    random_ = random.Random(seed)
    row = random_.choice(ROWS[name])
    for _ in range(random_.randint(1, 4)):
        row = damage(row, random_, new)
    for config in (DataConfig(), DataConfig(format=name)):
        line = json.dumps(row).encode()
        records = Reader(config).records(parse_line(line, 7), "log.jsonl")
        assert records
        for record in records:
            if isinstance(record, Rejected):
                assert record.line == 7 and record.reason.sentence() and record.reason.code != "unreadable"
            else:
                assert record.source == "log.jsonl:7"
                assert Interaction.model_validate_json(record.model_dump_json(exclude_defaults=True)) == record
                assert any(message.role in ("user", "tool") for message in record.messages)


SECRETS = ("amy@corp.io", "AKIAQYLPMN5HFIQR7XYZ")


def _with_secrets(value: Any, random_: random.Random) -> Any:
    """The value with secrets behind one of its texts, wherever that stands, and in JSON within text too."""
    if isinstance(value, dict) and value:
        key = random_.choice(list(value))
        return {**value, key: _with_secrets(value[key], random_)}
    if isinstance(value, list) and value:
        place = random_.randrange(len(value))
        return [*value[:place], _with_secrets(value[place], random_), *value[place + 1 :]]
    if isinstance(value, str) and value[:1] in ("{", "["):
        return json.dumps(_with_secrets(json.loads(value), random_))
    return f"{value} {SECRETS[0]} {SECRETS[1]} " if isinstance(value, str) else value


@pytest.mark.parametrize("name", ROWS)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=60 * FUZZ, deadline=None)
def test_no_secret_survives_wherever_it_stands(name: str, seed: int) -> None:
    from journeyman.stages.ingest import _without_secrets

    random_ = random.Random(seed)
    row = _with_secrets(random_.choice(ROWS[name]), random_)
    records = Reader(DataConfig()).records(parse_line(json.dumps(row).encode(), 1), "log.jsonl")
    assert records, "a row is read or rejected"
    for record in records:
        kept = (
            Redactor().interaction(record) if isinstance(record, Interaction) else _without_secrets(record, Redactor())
        )
        text = kept.model_dump_json()
        assert not any(secret in text for secret in SECRETS), text


@given(
    data=st.binary(max_size=400), name=st.sampled_from(["x.jsonl", "x.json", "x.csv", "x.jsonl.gz", "x.zst", "x.tsv"])
)
@settings(max_examples=300 * FUZZ, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_crash_a_reader(tmp_path: Path, data: bytes, name: str) -> None:
    path = _written(tmp_path, name, data)
    try:
        records = _read(path)
    except JourneymanError:
        return
    if name == "x.jsonl":
        assert len(records) == sum(bool(line.strip()) for line in data.split(b"\n"))


@given(cuts=st.lists(st.integers(0, 5_000), max_size=3), name=st.sampled_from(sorted(EXPECTED)))
@settings(max_examples=100 * FUZZ, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_in_equal_rows_kept_and_rejected(tmp_path: Path, cuts: list[int], name: str) -> None:
    data = bytearray(b"".join(_lines(f"{name}.jsonl")))
    for cut in cuts:
        start = cut % max(1, len(data))
        del data[start : start + cut % 7 + 1]
    path = _written(tmp_path, "log.jsonl", bytes(data))
    out = tmp_path / "out"
    try:
        found = ingest(sources_of([path]), DataConfig(), RedactConfig(), out, SilentReporter())
    except InputError:
        return
    kept = len(list(read_rows(out / "interactions.jsonl.zst", Interaction)))
    rejected = len(list(read_rows(out / "rejected.jsonl", Rejected)))
    lines = sum(bool(line.strip()) for line in bytes(data).split(b"\n"))
    assert (found.kept, found.rejected, found.read) == (kept, rejected, lines)
