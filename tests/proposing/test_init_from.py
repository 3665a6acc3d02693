"""`journeyman init --from`: the sample, the proposal, and the config that it writes."""

from __future__ import annotations

import gzip
import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import log_row
from journeyman.cli.init import write_proposed
from journeyman.config import DataConfig, load_config
from journeyman.errors import Interrupted, JourneymanError, UsageError
from journeyman.manifests import DatasetManifest, IngestManifest
from journeyman.pipeline import Run, run_pipeline, typed_result
from journeyman.proposing.checks import proposed_checks
from journeyman.proposing.fields import proposed_columns, role_fields
from journeyman.proposing.lengths import Length, Lengths
from journeyman.proposing.places import source_paths
from journeyman.proposing.proposal import Proposal, propose
from journeyman.proposing.toml import config_text, toml_string
from journeyman.protocols import SilentReporter
from journeyman.reasons.files import BeyondSample
from journeyman.records import Interaction, Message, ToolCall
from journeyman.sources.files import log_sources, require_logs, sources_of
from journeyman.sources.nearby import NoLogFound
from journeyman.sources.sample import MOST_FILES, sampled

DEMO = Path(__file__).parents[2] / "src/journeyman/demo/interactions.jsonl"
WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "islet", "jetty", "knoll", "larch"]


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _answer(text: str, calls: list[ToolCall] | None = None, **changes: Any) -> Interaction:
    fields: dict[str, Any] = {
        "id": "x", "source": "x:1", "role": "worker", "messages": [Message(role="user", content="do it")],
        "output": text, "output_calls": calls or [], "succeeded": True,
    }  # fmt: skip
    return Interaction(**(fields | changes))


def _prose(number: int, words: int = 30) -> str:
    return " ".join(WORDS[(number * k + k) % len(WORDS)] for k in range(1, words + 1)).capitalize() + "."


# --- checks ------------------------------------------------------------------------------------------

DIFF = "--- a/pump.py\n+++ b/pump.py\n@@ -1 +1 @@\n-speed = {0}\n+speed = {1}\n"
CALL = [ToolCall(name="find_valve", arguments={"hall": 3})]
CHECKS: dict[str, tuple[Callable[[int], Interaction], list[str], str]] = {
    "code": (lambda n: _answer(f"```python\ndef f{n}(x):\n    return x + {n}\n```"), ["python_parses"], "Python"),
    "code with tests": (
        lambda n: _answer(f"def f(x):\n    return x + {n}", check={"tests": f"assert f(0) == {n}"}),
        ["python_tests"], "check.tests",
    ),
    "json": (lambda n: _answer(json.dumps({"part": WORDS[n], "count": n})), ["similarity"], "one JSON object"),
    "json in a fence": (lambda n: _answer(f'```json\n{{"n": {n}}}\n```'), ["similarity"], "one JSON object"),
    "json with a schema": (
        lambda n: _answer(json.dumps({"count": n}), check={"schema": {"type": "object"}}),
        ["json_schema"], "check.schema",
    ),
    "calls": (lambda n: _answer("", CALL), ["tool_call"], "find_valve 12"),
    "calls in part": (lambda n: _answer(_prose(n), CALL if n % 2 else []), ["tool_call"], "6 of 12 answers"),
    "labels": (lambda n: _answer(("yes", "no")[n % 2]), ["exact"], "2 different ones"),
    "short answers": (lambda n: _answer(f"{n * 17} litres"), ["normalized"], "12 different ones"),
    "diffs": (lambda n: _answer(DIFF.format(n, n + 1)), ["similarity"], "contain a diff"),
    "diffs with files": (
        lambda n: _answer(DIFF.format(n, n + 1), check={"files": {"pump.py": f"speed = {n}\n"}}),
        ["patch_applies"], "check.files",
    ),
    "pattern": (lambda n: _answer(_prose(n), check={"pattern": "^[A-Z]"}), ["regex"], "check.pattern"),
    "prose": (lambda n: _answer(_prose(n)), ["similarity"], "30 words (median)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHECKS)
def test_the_answers_decide_the_checks(kind: str) -> None:
    make, checks, why = CHECKS[kind]
    found = proposed_checks([make(number) for number in range(12)])
    assert found.checks == ("answered", *checks)
    assert any(why in one for one in found.why), found.why


def test_a_judge_is_suggested_for_long_prose_only() -> None:
    def hints(words: int) -> str:
        return " ".join(proposed_checks([_answer(_prose(number, words)) for number in range(12)]).hints)

    assert "judge" in hints(200) and "judge" not in hints(20)


def test_check_data_of_few_rows_are_mentioned_and_not_used() -> None:
    rows = [_answer(_prose(number), check={"pattern": "x"} if number < 5 else {}) for number in range(12)]
    found = proposed_checks(rows)
    assert "regex" not in found.checks
    bad = proposed_checks([_answer(_prose(number), check={"pattern": "("}) for number in range(12)])
    assert "regex" not in bad.checks


def test_failures_mocks_and_cut_answers_do_not_decide() -> None:
    code = [_answer(f"def f():\n    return {number}") for number in range(6)]
    failed = [_answer("oops", succeeded=False) for _ in range(20)]
    mocks = [_answer("ok", provider="mock") for _ in range(20)]
    cut = [_answer("```python\ndef f(x", finish_reason="length") for _ in range(20)]
    assert proposed_checks([*failed, *code, *mocks, *cut]).checks == ("answered", "python_parses")
    assert proposed_checks(failed).checks == ("answered",)


def test_words_and_numbers_are_no_python() -> None:
    rows = [_answer(("\n\n" + _prose(number)) * 3) for number in range(6)]
    rows += [_answer(str(number) * 100) for number in range(6)]
    assert "python_parses" not in proposed_checks(rows).checks


# --- the sample --------------------------------------------------------------------------------------


def test_a_small_log_is_sampled_whole(tmp_path: Path) -> None:
    path = _write(tmp_path / "log.jsonl", [log_row(number) for number in range(30)])
    found = sampled(sources_of([path]), DataConfig())
    assert found.whole and found.rows == 30 and found.rows_in_all == 30


def test_a_large_log_is_sampled_at_its_beginning_middle_and_end(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = 60_000
    with path.open("w") as file:
        for number in range(lines):
            file.write(json.dumps({"number": number, "filler": "x" * 600}) + "\n")
    found = sampled(sources_of([path]), DataConfig())
    numbers = [(row.parsed().value or {})["number"] for row in found.files[0].rows]
    assert numbers[0] == 0 and numbers[-1] == lines - 1
    assert any(0.4 * lines < number < 0.6 * lines for number in numbers)
    assert 1_000 < len(numbers) <= 1_500 and numbers == sorted(set(numbers))
    assert found.rows_in_all == pytest.approx(lines, rel=0.02)
    assert found.files == sampled(sources_of([path]), DataConfig()).files


@pytest.mark.parametrize("name", ["log.jsonl.gz", "log.json", "log.csv"])
def test_what_cannot_be_entered_is_sampled_from_its_beginning(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("journeyman.sources.sample.MOST_BYTES", 40_000)
    monkeypatch.setattr("journeyman.sources.sample._LEAST_BYTES", 40_000)
    monkeypatch.setattr("journeyman.sources.sample.MOST_ROWS", 100)
    rows = [{"prompt": f"question {number}", "answer": os.urandom(40).hex()} for number in range(5_000)]
    path = tmp_path / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    elif name.endswith(".csv"):
        path.write_text("prompt,answer\n" + "".join(f"{row['prompt']},{row['answer']}\n" for row in rows))
    else:
        path.write_text(json.dumps(rows, indent=1))
    (found,) = sampled(sources_of([path]), DataConfig()).files
    assert found.part == "beginning" and 50 <= len(found.rows) <= 100
    assert all(row.parsed().value for row in found.rows)  # none is the piece at which the sample ends
    assert found.rows_in_file is not None and 2_000 < found.rows_in_file < 12_000


def test_one_huge_value_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text('{\n"rows": [' + '{"a": 1},\n' * 3_000_000 + '{"a": 1}]}')
    (found,) = sampled(sources_of([path]), DataConfig()).files
    assert [row.problem == BeyondSample(24) for row in found.rows] == [True]


def test_of_many_files_some_of_each_kind_are_read(tmp_path: Path) -> None:
    for number in range(300):
        _write(tmp_path / f"{number:03}.jsonl", [log_row(number)])
    _write(tmp_path / "100-largest.jsonl", [log_row(number) for number in range(50)])
    (tmp_path / "150.csv").write_text("prompt,answer\na,b\n")
    found = sampled(log_sources(tmp_path, ["."]), DataConfig())
    names = {one.name for one in found.files}
    assert MOST_FILES - 5 < len(names) <= MOST_FILES and found.all_files == 302
    assert {"000.jsonl", "299.jsonl", "100-largest.jsonl", "150.csv"} <= names


def test_a_damaged_file_does_not_keep_the_others_from_being_sampled(tmp_path: Path) -> None:
    _write(tmp_path / "good.jsonl", [log_row(number) for number in range(5)])
    (tmp_path / "bad.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n' * 900)[:-12])
    (tmp_path / "noise.jsonl").write_bytes(os.urandom(5_000))
    found = propose(tmp_path / "run", ["."], tmp_path)
    assert len(found.survey.kept) == 5 and "file_damaged" in found.survey.reasons


def test_a_batch_is_joined_as_ingest_joins_it(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "How much?"}]
    said = {"choices": [{"message": {"role": "assistant", "content": "13 litres"}, "finish_reason": "stop"}]}
    asked = [{"custom_id": f"r{n}", "method": "POST", "body": {"model": "m", "messages": turns}} for n in range(4)]
    given = [{"custom_id": f"r{n}", "response": {"status_code": 200, "body": said}} for n in range(4)]
    _write(tmp_path / "in.jsonl", asked)
    _write(tmp_path / "out.jsonl", given)
    survey = propose(tmp_path / "run", ["."], tmp_path).survey
    assert len(survey.kept) == 4 and survey.rejected == 0
    assert survey.kept[0].messages[0].content == "How much?"


# --- roles, columns, lengths -------------------------------------------------------------------------


def _finetune(number: int, **fields: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": _prose(number, 8)}, {"role": "assistant", "content": _prose(number + 5)}]
    return {"messages": turns, **fields}


def test_a_field_that_names_the_role_is_found(tmp_path: Path) -> None:
    rows = [_finetune(number, info={"agent_kind": {"agent": ("ada", "bob")[number % 2]}}) for number in range(30)]
    found = propose(tmp_path / "run", [str(_write(tmp_path / "log.jsonl", rows))])
    assert found.role_field is not None and found.role_field.path == "info.agent_kind.agent"
    assert set(found.checks) == {"ada", "bob"}
    assert tomllib.loads(config_text(found))["data"]["role_field"] == "info.agent_kind.agent"


def test_a_field_that_may_name_the_role_is_only_suggested(tmp_path: Path) -> None:
    rows = [_finetune(number, team=("red", "blue", "green")[number % 3], unique=f"u{number}") for number in range(30)]
    found = propose(tmp_path / "run", [str(_write(tmp_path / "log.jsonl", rows))])
    assert found.role_field is None and [one.path for one in found.role_candidates] == ["team"]
    text = config_text(found)
    assert '# role_field = "team"' in text and "role_field" not in tomllib.loads(text)["data"]
    assert set(found.checks) == {"agent"}


def test_speakers_and_names_that_never_repeat_are_no_roles() -> None:
    assert not role_fields([{"role": ("user", "assistant")[number % 2]} for number in range(20)])
    assert not role_fields([{"agent": f"agent-{number}"} for number in range(20)])
    assert not role_fields([{"agent": "all"} for _ in range(20)])


def _stranger(number: int) -> dict[str, Any]:
    return {"ask": {"question_text": _prose(number, 6)}, "reply_text": _prose(number + 3), "model_name": "m1"}


def test_an_unknown_format_is_read_where_its_mapping_is_unambiguous(tmp_path: Path) -> None:
    path = _write(tmp_path / "log.jsonl", [_stranger(number) for number in range(20)])
    found = propose(tmp_path / "run", [str(path)])
    columns = tomllib.loads(config_text(found))["data"]["columns"]
    assert columns == {"prompt": "ask.question_text", "answer": "reply_text", "model": "model_name"}
    assert len(found.survey.kept) == 20 and found.survey.kept[0].model == "m1"


def test_an_ambiguous_mapping_is_a_comment_that_loads_when_it_is_uncommented(tmp_path: Path) -> None:
    rows = [{**_stranger(number), "other_reply": "x", "user_name": "y"} for number in range(20)]
    found = propose(tmp_path / "run", [str(_write(tmp_path / "log.jsonl", rows))])
    text = config_text(found)
    assert found.columns is not None and not found.columns_set
    assert "columns" not in tomllib.loads(text)["data"] and "# or other_reply" in text
    begin = text.index("# [data.columns]")
    end = text.index("\n\n", begin)
    active = text[:begin] + text[begin:end].replace("\n# ", "\n").removeprefix("# ") + text[end:]
    assert tomllib.loads(active)["data"]["columns"]["answer"] == "reply_text"


def test_a_few_strange_rows_among_others_change_nothing(tmp_path: Path) -> None:
    rows = [*(_finetune(number) for number in range(30)), _stranger(1)]
    found = propose(tmp_path / "run", [str(_write(tmp_path / "log.jsonl", rows))])
    assert not found.columns_set and len(found.survey.kept) == 30 and found.survey.formats["unknown"] == 1


def test_nearest_formats_are_named() -> None:
    found = proposed_columns([{"conversations": 1, "value": "x"}])
    assert found.nearest == {"sharegpt": ["conversations", "value"]} and not found.sure


def test_text_that_is_no_utf8_is_read_in_an_old_encoding(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes("prompt,answer\nWie groß?,Fünf Meter\n".encode("cp1252") * 1)
    found = propose(tmp_path / "run", ["log.csv"], tmp_path)
    assert found.survey.kept[0].output == "Fünf Meter"
    assert tomllib.loads(config_text(found))["data"]["encoding"] == "cp1252"


def test_limits_hold_the_sample_and_leave_room() -> None:
    rows = [Length("a", 900, 100 + number) for number in range(100)]
    limits = Lengths(rows, 100, "base", 8192, {}).limits()
    assert (limits.max_length, limits.over) == (2048, 0)
    assert 199 < limits.max_new_tokens <= 320 and limits.context >= limits.max_length + limits.max_new_tokens
    small = Lengths([*rows, *[Length("a", 9_000, 10)] * 50], 150, "base", 4096, {}).limits()
    assert (small.max_length, small.over, small.context) == (4096, 50, 4096)


# --- the config that is written ----------------------------------------------------------------------


def _init(folder: Path, *entries: str | Path) -> Path:
    write_proposed(folder, [str(one) for one in entries])
    return folder / "journeyman.toml"


def _until_curate(folder: Path) -> tuple[IngestManifest, DatasetManifest]:
    run = Run(folder, load_config(folder / "journeyman.toml"))
    for _ in run_pipeline(run, "curate", SilentReporter()):
        pass
    return typed_result(folder, "ingest", IngestManifest), typed_result(folder, "curate", DatasetManifest)


def test_the_demo_gets_the_checks_of_its_own_config(tmp_path: Path) -> None:
    made = load_config(_init(tmp_path / "run", DEMO))
    shipped = load_config(DEMO.with_name("journeyman.toml"))
    assert {role: one.checks for role, one in made.roles.items()} == {
        role: one.checks for role, one in shipped.roles.items()
    }


def test_ingest_and_curate_accept_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(tmp_path / "logs" / "a.jsonl", [log_row(number, "coder") for number in range(40)])
    _write(tmp_path / "logs" / "b.jsonl", [log_row(number, 'te"s\ner\u202e') for number in range(40, 80)])
    (tmp_path / "logs" / "noise.txt").write_text("no log\n")
    config = load_config(_init(tmp_path / "run", tmp_path / "logs"))
    assert config.data.sources == ["../logs"] and set(config.roles) == {"coder", 'te"s\ner\u202e'}
    shown = capsys.readouterr().out
    assert "interactions 80, unreadable 1" in shown and "1.2% of the sampled rows would be rejected" in shown
    assert "\u202e" not in shown and "\u202e" not in (tmp_path / "run" / "journeyman.toml").read_text()
    ingested, curated = _until_curate(tmp_path / "run")
    assert (ingested.kept, ingested.rejected) == (80, 1) and curated.rows_in == 80


def test_an_unknown_format_goes_through_curate(tmp_path: Path) -> None:
    _write(tmp_path / "log.jsonl", [{**_stranger(n), "agent": ("ada", "bob")[n % 2]} for n in range(40)])
    _init(tmp_path / "run", tmp_path / "log.jsonl")
    ingested, curated = _until_curate(tmp_path / "run")
    assert set(ingested.by_role) == {"ada", "bob"} and curated.rows_in == 40


def test_a_run_inside_its_logs_does_not_read_itself(tmp_path: Path) -> None:
    _write(tmp_path / "a.jsonl", [log_row(number) for number in range(20)])
    _write(tmp_path / "deep" / "b.jsonl", [log_row(number) for number in range(20, 40)])
    for folder in (tmp_path / "run", tmp_path):
        _init(folder, tmp_path)
        ingested, _ = _until_curate(folder)
        assert ingested.read == 40
    run = Run(tmp_path, load_config(tmp_path / "journeyman.toml"))
    assert sorted(source.path.name for source in run.sources) == ["a.jsonl", "b.jsonl"]


def test_nothing_is_written_over_or_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = _write(tmp_path / "log.jsonl", [log_row(1)])
    there = tmp_path / "run" / "journeyman.toml"
    there.parent.mkdir()
    there.write_text("# mine\n")
    with pytest.raises(UsageError, match="already exists and was not changed"):
        _init(tmp_path / "run", log)
    assert there.read_text() == "# mine\n"

    def stopped(*_: object) -> Proposal:
        raise KeyboardInterrupt

    monkeypatch.setattr("journeyman.proposing.proposal.propose", stopped)
    with pytest.raises(Interrupted, match="was not written"):
        _init(tmp_path / "new", log)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["empty.jsonl", "empty", "absent.jsonl", "absent/*.jsonl"])
def test_logs_without_a_row_are_an_error_and_no_folder_is_made(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UsageError) as error:
        _init(tmp_path / "run", tmp_path / name)
    assert str(tmp_path / name) in error.value.what and not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["plain", 'a "b" \\ c', "tab\tline\nend\x7f", "\u202e\U000e0001\u00e9"])
def test_a_toml_string_holds_any_text(text: str) -> None:
    assert tomllib.loads(f"a = {toml_string(text)}")["a"] == text
    assert "\u202e" not in toml_string(text)


# --- data.sources that names nothing -----------------------------------------------------------------


@pytest.fixture
def nearby(tmp_path: Path) -> Path:
    _write(tmp_path / "run" / "log" / "interactions.jsonl", [log_row(1)])
    _write(tmp_path / "run" / "01-interactions" / "rejected.jsonl", [{}])
    _write(tmp_path / "run" / "evidence" / "looks.jsonl", [{}])
    (tmp_path / "run" / "journeyman.log").write_text("x")
    _write(tmp_path / "above.jsonl", [log_row(1)])
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("entries", "fix", "similar"),
    [
        (["logs"], "log", True),
        (["logs/*.jsonl"], "log/*.jsonl", True),
        (["log/interaction.jsonl"], "log/interactions.jsonl", True),
        (["interactions.jsonl"], "log/interactions.jsonl", True),
        (["zzz.parquet"], "log/interactions.jsonl", False),
        ([], "log/interactions.jsonl", False),
        ([""], "log/interactions.jsonl", False),
    ],
)
def test_the_error_names_the_place_and_the_fix(entries: list[str], fix: str, similar: bool, nearby: Path) -> None:
    with pytest.raises(NoLogFound) as error:
        require_logs(nearby, entries)
    found = error.value
    assert found.place.is_absolute() and str(nearby) in found.what
    assert (found.fix, found.similar) == (fix, similar) and fix in found.remedy
    shown = "\n".join(found.details)
    assert "log/interactions.jsonl" in shown and " bytes)" in shown
    assert ("../above.jsonl" in shown) == (entries != ["log/interaction.jsonl"])
    assert "journeyman.log" not in shown and "01-interactions" not in shown and "evidence" not in shown


def test_a_new_config_in_a_run_folder_reads_none_of_its_own_folders(tmp_path: Path) -> None:
    for name in ("01-interactions", "superseded", "evidence", "logs"):
        _write(tmp_path / name / "rows.jsonl", [log_row(1)])
    assert source_paths(tmp_path, tmp_path, ["."]) == [tmp_path / "logs"]


def test_ingest_says_it_before_it_reads(nearby: Path) -> None:
    (nearby / "journeyman.toml").write_text('[data]\nsources = ["log", "logs2/*.jsonl"]\n')
    run = Run(nearby, load_config(nearby / "journeyman.toml"))
    with pytest.raises(JourneymanError, match="matches no file; there is no folder"):
        list(run_pipeline(run, "ingest", SilentReporter()))
