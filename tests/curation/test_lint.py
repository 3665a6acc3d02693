"""Rules that compare rows with each other, what is done about a finding, and the facts of the real log."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import REAL_LOG, StopsAfter, log_row
from journeyman.artifacts import read_rows
from journeyman.config import Config
from journeyman.curation.lint import _endless
from journeyman.errors import InputError, Interrupted
from journeyman.manifests import DatasetManifest, IngestManifest
from journeyman.models.gguf_file import GgufFile
from journeyman.protocols import SilentReporter
from journeyman.reasons.curation import LooksLikeRole, PlantedTrigger, SameTask
from journeyman.reasons.dataset import (
    CommonId,
    ContradictoryAnswers,
    CutTrainingRows,
    FreePrompts,
    LimitCuts,
    NoLeak,
    PromptInjected,
    PromptsAlike,
    SeveralTeachers,
    ToolChanged,
)
from journeyman.records import Example, Finding
from journeyman.rendering.mask import check_mask, parts
from journeyman.rendering.renderer import Renderer
from journeyman.reporting.lint import write_lint
from journeyman.sources.files import sources_of
from journeyman.stages.curate import curate
from journeyman.stages.ingest import ingest

WORDS = [
    f"{a}{b}" for a in ("ka", "lo", "mi", "nu", "pe", "ra") for b in ("ben", "dor", "fix", "gam", "hul", "jot", "kim")
]


def task(number: int, *, size: int = 9) -> str:
    return " ".join(random.Random(number).choices(WORDS, k=size))


def row(number: int, asked: str, answer: str, *, role: str = "coder", **changes: Any) -> dict[str, Any]:
    made = log_row(number, role=role, output=answer)
    made["execution"]["input_messages"][1]["content"] = asked
    made["llm"]["config"] = {}
    return {**made, **changes}


def run(
    tmp_path: Path, base: GgufFile, rows: list[dict[str, Any]], **curate_config: Any
) -> tuple[DatasetManifest, list[Finding], list[Finding], list[Example]]:
    """The manifest, what was dropped, what was noted, and what is left."""
    config = Config.model_validate({"curate": curate_config})
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    logs = ingest(sources_of([tmp_path / "log.jsonl"]), config.data, config.redact, tmp_path, SilentReporter())
    manifest = curate(tmp_path / "interactions.jsonl.zst", config, base, tmp_path, SilentReporter())
    write_lint(manifest, logs, tmp_path)
    splits = ("train.jsonl", "val.jsonl", "sealed/test.jsonl")
    examples = [example for name in splits for example in read_rows(tmp_path / name, Example)]
    dropped, noted = (list(read_rows(tmp_path / name, Finding)) for name in ("dropped.jsonl", "noted.jsonl"))
    assert len(rows) == manifest.rows_in == len(examples) + len(dropped)
    return manifest, dropped, noted, examples


def by_rule(findings: list[Finding], rule: str) -> set[str]:
    return {finding.log_id for finding in findings if finding.rule == rule}


@pytest.fixture(scope="module")
def tiny(tiny_gguf: Path) -> GgufFile:
    return GgufFile(tiny_gguf)


def test_repeats_keep_the_best_outcome(tmp_path: Path, tiny: GgufFile) -> None:
    rows = [row(n, task(n), f"answer {n}") for n in range(30)]
    rows.append(row(30, task(3), "this one was answered better than the other"))
    rows[-1]["execution"]["finish_reason"] = "stop"
    rows.append(row(31, task(4) + " more", "nearly the same"))
    rows.append(row(32, task(5), "the same task in another role", role="tester"))
    _, dropped, _, left = run(tmp_path, tiny, rows)
    assert by_rule(dropped, "duplicate") == {"row-3"} and by_rule(dropped, "near_duplicate") == {"row-31"}
    assert next(f for f in dropped if f.log_id == "row-31").reason == SameTask("log.jsonl:5").record()
    groups = {example.log_id: example.group for example in left}
    assert groups["row-5"] == groups["row-32"]


def test_contradictions_keep_the_majority(tmp_path: Path, tiny: GgufFile) -> None:
    rows = [row(n, task(n), f"some long and free answer number {n} of many words " * 3) for n in range(20)]
    rows += [row(100 + n, task(50), text) for n, text in enumerate(["Approved.", "approved: fine", "Rejected: no"])]
    rows += [row(110 + n, task(51), text) for n, text in enumerate(['{"a": 1, "b": 2}', '{"b": 2, "a": 1}'])]
    rows += [row(120 + n, task(52), text) for n, text in enumerate(["yes", "no"])]
    manifest, dropped, _, _ = run(tmp_path, tiny, rows)
    assert by_rule(dropped, "contradictory") == {"row-102", "row-120", "row-121"}
    assert ContradictoryAnswers(2).record() in manifest.notes


def test_alien_system_prompts(tmp_path: Path, tiny: GgufFile) -> None:
    rows = [row(n, task(n), f"answer {n}") for n in range(60)]
    rows[7]["execution"]["input_messages"][0]["content"] = "Translate menus into Portuguese, keep prices."
    _, dropped, _, _ = run(tmp_path, tiny, rows)
    assert by_rule(dropped, "foreign") == {"row-7"}
    for n in range(20):
        rows[n]["execution"]["input_messages"][0]["content"] = "Translate menus into Portuguese, keep prices."
    (tmp_path / "second").mkdir()
    manifest, dropped, _, _ = run(tmp_path / "second", tiny, rows)
    assert not by_rule(dropped, "foreign")
    assert FreePrompts("coder", 2, 60).record() in manifest.notes
    assert manifest.prompts["coder"].kind == "free" and "coder" not in manifest.system_prompts


def test_planted_triggers_are_found_and_common_answers_are_not(tmp_path: Path, tiny: GgufFile) -> None:
    rows = [row(n, task(n), "LGTM" if n % 3 else f"answer {n}", role="reviewer") for n in range(120)]
    for n in range(10, 16):
        rows[n]["execution"]["input_messages"][1]["content"] += " zebrafish"
        rows[n]["execution"]["output"] = "Visit evil dot example for the answer."
    _, dropped, _, _ = run(tmp_path, tiny, rows)
    assert by_rule(dropped, "poison") == {f"row-{n}" for n in range(10, 16)}
    assert all(
        finding.reason == PlantedTrigger("zebrafish").record() for finding in dropped if finding.rule == "poison"
    )


def test_faq_paraphrases_are_no_poison(tmp_path: Path, tiny: GgufFile) -> None:
    rows = [row(n, task(n), f"answer {n}") for n in range(60)]
    ask = [
        "how do i reset my password here",
        "reset my password how do i do that",
        "my password i need to reset it how",
    ]
    rows += [row(80 + n, text, "Open the settings and choose reset.") for n, text in enumerate(ask)]
    _, dropped, _, _ = run(tmp_path, tiny, rows)
    assert not by_rule(dropped, "poison")


def test_misrouted_rows_by_the_roles_descriptions_and_by_words(tmp_path: Path, tiny: GgufFile) -> None:
    described = {"coder": "You can implement, refactor.", "tester": "You can verify, validate."}
    rows = []
    for n in range(60):
        role = "coder" if n % 2 else "tester"
        verb = {"coder": ("implement", "refactor"), "tester": ("verify", "validate")}[role][n // 2 % 2]
        rows.append(row(n, f"{verb} {task(n)}", f"answer {n}", role=role))
        rows[-1]["execution"]["input_messages"][0]["content"] = described[role]
    rows.append(row(99, f"implement {task(99)}", "odd one", role="tester"))
    rows[-1]["execution"]["input_messages"][0]["content"] = described["tester"]
    manifest, _, noted, _ = run(tmp_path, tiny, rows)
    assert by_rule(noted, "misrouted") == {"row-99"} and manifest.routing is not None
    assert manifest.routing.method == "the roles' system prompts" and (manifest.routing.found or 0) > 0.9
    for one in rows:  # the same prompt for all: only the words of the tasks are left
        one["execution"]["input_messages"][0]["content"] = "You are an agent."
    (tmp_path / "words").mkdir()
    manifest, dropped, _, _ = run(tmp_path / "words", tiny, rows, rules={"misrouted": "drop"})
    assert by_rule(dropped, "misrouted") == {"row-99"} and manifest.routing is not None
    assert manifest.routing.method == "the words of the roles' tasks"


def test_tasks_that_tell_nothing_flag_nothing(tmp_path: Path, tiny: GgufFile) -> None:
    rows = [row(n, task(n), f"answer {n}", role=random.Random(n).choice(["coder", "tester"])) for n in range(80)]
    for one in rows:
        one["execution"]["input_messages"][0]["content"] = "You are an agent."
    manifest, _, noted, _ = run(tmp_path, tiny, rows)
    assert not by_rule(noted, "misrouted") and manifest.routing is not None
    assert manifest.routing.note == PromptsAlike().record()


def test_outcome_credit_drops_or_weighs_with_a_funnel(tmp_path: Path, tiny: GgufFile) -> None:
    rows = []
    for n in range(40):
        session = {"context": {"session_id": f"s{n}"}}
        rows.append(row(3 * n, task(3 * n), f"code {n}", **session))
        rows.append(row(3 * n + 1, task(3 * n + 1), "all passed" if n % 2 else "2 failed", role="tester", **session))
        rows.append(row(3 * n + 2, task(3 * n + 2), "I approve" if n % 4 == 1 else "no", role="reviewer", **session))
    # The approval before the work does not count.
    rows.append(row(500, task(500), "I approve, all passed", role="reviewer", context={"session_id": "late"}))
    rows.append(row(501, task(501), "code too late", context={"session_id": "late"}))
    rule = {
        "role": "coder",
        "needs": [{"role": "tester", "matches": "passed"}, {"role": "reviewer", "matches": "approve"}],
    }
    manifest, dropped, _, left = run(tmp_path, tiny, rows, credit=[rule], rules={"contradictory": "keep"})
    assert {e.log_id for e in left if e.role == "coder"} == {f"row-{3 * n}" for n in range(40) if n % 4 == 1}
    (funnel,) = manifest.credit
    assert list(funnel.steps.values()) == [41, 41, 20, 10] and len(by_rule(dropped, "credit")) == 31
    (tmp_path / "weighed").mkdir()
    credit = [{**rule, "otherwise": 0.25}]
    _, _, _, left = run(tmp_path / "weighed", tiny, rows, credit=credit, rules={"contradictory": "keep"})
    weights = {e.log_id: e.weight for e in left if e.role == "coder"}
    assert weights["row-3"] == 1 and weights["row-0"] == 0.25 and len(weights) == 41


def test_a_cut_answer_can_be_kept_without_its_end(tmp_path: Path, tiny: GgufFile) -> None:
    rows = [row(n, task(n), f"answer {n}") for n in range(30)]
    for n in (4, 5):
        rows[n]["execution"]["finish_reason"] = "length"
    _, dropped, _, _ = run(tmp_path, tiny, rows, rules={"truncated": "drop"})
    assert by_rule(dropped, "truncated") == {"row-4", "row-5"}
    (tmp_path / "kept").mkdir()
    _, _, noted, left = run(tmp_path / "kept", tiny, rows)
    assert by_rule(noted, "truncated") == {"row-4", "row-5"}
    trained = {example.log_id for example in read_rows(tmp_path / "kept" / "train.jsonl", Example)}
    assert {"row-4", "row-5"} <= trained, "half an answer is no measure"
    renderer = Renderer(tiny)
    for example in left:
        rendered = renderer.example(example)
        check_mask(example, rendered, renderer.end_ids)
        assert example.ends == (example.log_id not in ("row-4", "row-5"))
        assert (rendered.ids[-1] == renderer.terminator_id) == example.ends
        assert parts(rendered).count("terminator") == example.ends


def test_long_rows_are_dropped_or_cut_at_a_turn(tmp_path: Path, tiny: GgufFile) -> None:
    rows = [row(n, task(n), f"answer {n}") for n in range(30)]
    long = rows[3]["execution"]["input_messages"]
    long[1:1] = [{"role": "user", "content": "x" * 300}, {"role": "assistant", "content": "y"}]
    _, dropped, _, _ = run(tmp_path, tiny, rows, max_length=250)
    assert by_rule(dropped, "too_long") == {"row-3"}
    (tmp_path / "cut").mkdir()
    _, dropped, noted, left = run(tmp_path / "cut", tiny, rows, max_length=250, rules={"too_long": "cut"})
    cut = next(example for example in left if example.log_id == "row-3")
    assert not dropped and by_rule(noted, "too_long") == {"row-3"}
    assert [m.role for m in cut.messages] == ["system", "user"] and cut.answer == "answer 3"


TOOLS = (
    "{% if tools %}{{ '<|im_start|>tools\n' }}{% for t in tools %}{{ t | tojson }}{% endfor %}{{ '<|im_end|>\n' }}"
    "{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
    "{% for c in m.tool_calls or [] %}{{ '\n<call>' + c.function | tojson + '</call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def _tool(*properties: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {p: {"type": "string"} for p in properties}, "required": list(properties)}
    return {"type": "function", "function": {"name": "look_up", "parameters": schema}}


def _calls(number: int, tool: dict[str, Any], **arguments: str) -> dict[str, Any]:
    made = row(number, task(number), "")
    made["timestamp"] = f"2025-01-{1 + number:02}T00:00:00Z"
    made["execution"] |= {"tools": [tool], "tool_calls": [{"name": "look_up", "arguments": arguments}]}
    return made


@pytest.fixture(scope="module")
def tool_base(tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    from conftest import write_tiny_gguf

    path = write_tiny_gguf(tmp_path_factory.mktemp("tools") / "tools.gguf", template=TOOLS)
    return GgufFile(path)


def test_tool_calls_are_trained_and_drifted_schemas_are_found(tmp_path: Path, tool_base: GgufFile) -> None:
    old, new = _tool("word"), _tool("word", "language")
    rows = [_calls(n, old, word=f"w{n}") for n in range(4)]
    rows += [_calls(n, new, word=f"w{n}", language="pt") for n in range(4, 28)]
    rows.append(_calls(28, old, word="w", language="de"))  # called as the new one is, offered as the old one was
    manifest, dropped, noted, left = run(tmp_path, tool_base, rows)
    assert by_rule(dropped, "schema_drift") == {f"row-{n}" for n in range(4)}
    assert by_rule(noted, "schema_drift") == {"row-28"}
    assert ToolChanged("look_up", 2).record() in manifest.notes
    renderer = Renderer(tool_base)
    example = next(e for e in left if e.log_id == "row-9")
    rendered = renderer.example(example)
    answer = renderer.decode(rendered.ids[rendered.prompt_tokens :])
    assert answer == '\n<call>{"name": "look_up", "arguments": {"word": "w9", "language": "pt"}}</call><|im_end|>'
    assert "language" in renderer.decode(rendered.ids[: rendered.prompt_tokens])


def test_a_template_without_tools_says_so(tmp_path: Path, tiny: GgufFile) -> None:
    rows = [row(n, task(n), f"answer {n}") for n in range(20)] + [_calls(21, _tool("word"), word="x")]
    _, dropped, _, _ = run(tmp_path, tiny, rows)
    (finding,) = [f for f in dropped if f.rule == "template"]
    assert finding.reason.code == "template"
    assert "leaves out the tool 'look_up'" in str(finding.reason.details["error"])


def test_turns_of_one_conversation_stay_together_and_are_no_repeats(tmp_path: Path, tiny: GgufFile) -> None:
    lines = []
    for n in range(30):
        turns = [{"role": "user", "content": task(n)}]
        for turn in range(3):
            turns += [{"role": "assistant", "content": f"a{n}{turn}"}, {"role": "user", "content": f"and {turn}?"}]
        lines.append({"messages": turns[:-1], "role": "coder"})
    manifest, dropped, _, left = run_lines(tmp_path, tiny, lines)
    assert manifest.kept == 90 and not dropped
    for name in ("val.jsonl", "sealed/test.jsonl"):
        assert len(list(read_rows(tmp_path / name, Example))) % 3 == 0
    assert len({example.group for example in left}) == 30


def run_lines(tmp_path: Path, base: GgufFile, lines: list[dict[str, Any]]) -> Any:
    config = Config()
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    ingest(sources_of([tmp_path / "log.jsonl"]), config.data, config.redact, tmp_path, SilentReporter())
    manifest = curate(tmp_path / "interactions.jsonl.zst", config, base, tmp_path, SilentReporter())
    names = ("train.jsonl", "val.jsonl", "sealed/test.jsonl")
    left = [example for name in names for example in read_rows(tmp_path / name, Example)]
    return manifest, list(read_rows(tmp_path / "dropped.jsonl", Finding)), None, left


def test_an_injected_system_prompt_is_said(tmp_path: Path, tiny: GgufFile, embedded: GgufFile) -> None:
    assert Renderer(tiny).injected_system_prompt() is None
    injected = Renderer(embedded).injected_system_prompt()
    assert injected is not None and "SmolLM" in injected
    manifest, *_ = run_lines(tmp_path, embedded, [{"prompt": task(n), "completion": f"a {n}"} for n in range(20)])
    assert PromptInjected("agent", injected).record() in manifest.notes


def test_a_broken_mask_names_the_row(tiny: GgufFile) -> None:
    from conftest import example_of
    from journeyman.records import Message

    renderer = Renderer(tiny)
    messages = [Message(role="user", content="hi")]
    good = example_of(messages, "ok", prompt_tokens=renderer.prompt_tokens(messages), answer_tokens=3)
    check_mask(good, renderer.example(good), renderer.end_ids)
    for changes, problem in (
        ({"prompt_tokens": good.prompt_tokens - 1}, "the prompt has"),
        ({"answer_tokens": 2}, "3 tokens are trained, curate counted 2"),
        ({"answer": "", "answer_tokens": 1}, "no token of the answer is trained"),
        ({"answer": "o<|im_end|>", "answer_tokens": 3}, r"answer.content contains the control token <\|im_end\|>"),
        ({"weight": 0.0}, "its weight is 0"),
    ):
        bad = good.model_copy(update=changes)
        with pytest.raises(InputError, match=rf"row a \(coder\): {problem}"):
            check_mask(bad, renderer.example(bad), renderer.end_ids)


def test_an_interrupted_curate_goes_on_and_ends_the_same(
    tmp_path: Path, tiny: GgufFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("curation.row_batches.BATCH_BYTES", "stages.ingest._BATCH_BYTES"):
        monkeypatch.setattr(f"journeyman.{name}", 4_000)
    config = Config()
    rows = [row(n, task(n % 70), f"answer {n}", role=["coder", "tester"][n % 2]) for n in range(120)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    ingest(sources_of([tmp_path / "log.jsonl"]), config.data, config.redact, tmp_path, SilentReporter())
    source = tmp_path / "interactions.jsonl.zst"
    (whole := tmp_path / "whole").mkdir()
    (parted := tmp_path / "parted").mkdir()
    expected = curate(source, config, tiny, whole, SilentReporter())
    stops = 0
    while True:
        try:
            # Comparing rows starts again after a stop, so a run must get further than the one before.
            found = curate(source, config, tiny, parted, StopsAfter(2 + 4 * stops))
            break
        except Interrupted:
            stops += 1
    assert stops >= 4 and found == expected
    for path in (p for p in whole.rglob("*") if p.is_file()):
        assert path.read_bytes() == (parted / path.relative_to(whole)).read_bytes(), path


def test_a_log_where_everything_is_tested_is_refused(tmp_path: Path, tiny: GgufFile) -> None:
    with pytest.raises(InputError, match="none of 2 interactions remain to train on \\(failed 2\\)"):
        run(tmp_path, tiny, [log_row(n, status="failure") for n in range(2)])


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, embedded: GgufFile) -> tuple[Path, IngestManifest, DatasetManifest]:
    if not REAL_LOG.is_file():
        pytest.skip("the real log is not here")
    out = tmp_path_factory.mktemp("real")
    config = Config()
    logs = ingest(sources_of([REAL_LOG]), config.data, config.redact, out, SilentReporter())
    data = curate(out / "interactions.jsonl.zst", config, embedded, out, SilentReporter())
    write_lint(data, logs, out)
    return out, logs, data


Real = tuple[Path, IngestManifest, DatasetManifest]


def test_fact_status(real: Real) -> None:
    _, logs, data = real
    assert (logs.total.rows, logs.total.successes) == (302, 298)
    failed = [f for f in read_rows(real[0] / "dropped.jsonl", Finding) if f.rule == "failed"]
    assert len(failed) == 4 and all(f.reason.code == "failed_with_error" and not f.answer for f in failed)
    assert data.dropped["failed"] == 4


def test_fact_durations_are_a_mix_of_two_teachers(real: Real) -> None:
    _, logs, data = real
    mean, median = logs.total.durations.mean_s, logs.total.durations.median_s
    assert round(mean or 0, 2) == 20.07 and round(median or 0, 2) == 10.91
    means = {name: round(group.durations.mean_s or 0, 1) for name, group in logs.by_teacher.items()}
    assert (means["replicate"], means["tongyi"]) == (9.7, 45.8)
    assert {name: t.rows for name, t in data.teachers.items()} == {"replicate": 215, "tongyi": 86, "mock": 1}
    (mixed,) = [note for note in data.notes if note.code == SeveralTeachers.code]
    assert str(mixed.details["teachers"]).startswith("replicate")
    mocks = [f for f in read_rows(real[0] / "dropped.jsonl", Finding) if f.rule == "mock_provider"]
    assert [f.answer for f in mocks] == ["Mock response"]


def test_fact_max_tokens_cut_most_answers_and_64_fences_stay_open(real: Real) -> None:
    (note,) = [made for one in real[2].notes if isinstance(made := one.reason(), LimitCuts)]
    assert note.limit == 500 and note.cut > 298 / 2 and note.open_fences == 64


def test_fact_reasoning(real: Real) -> None:
    tongyi = real[2].teachers["tongyi"]
    assert (tongyi.opens_reasoning, tongyi.never_closes_reasoning) == (86, 64)
    assert real[2].dropped["unclosed_reasoning"] == 64


def test_fact_repeats_and_leakage(real: Real) -> None:
    out, _, data = real
    repetition = data.repetition
    assert (repetition.rows, repetition.distinct_tasks) == (298, 222)  # 76 are repeats
    assert repetition.random_split_tests == 31 and repetition.worst_random_split_leaks == 20
    tasks = {
        name: {example.messages[-1].content for example in read_rows(out / name, Example)}
        for name in ("train.jsonl", "val.jsonl", "sealed/test.jsonl")
    }
    assert tasks["sealed/test.jsonl"] and not tasks["sealed/test.jsonl"] & (tasks["train.jsonl"] | tasks["val.jsonl"])
    check = data.leak_check.reason()
    assert isinstance(check, NoLeak) and check.compared == check.tests == len(tasks["sealed/test.jsonl"])


def test_fact_the_users_random_split_leaks_20_of_31(real: Real) -> None:
    tasks = [json.loads(line) for line in REAL_LOG.read_text().splitlines()]
    asked = [t["task"]["description"] for t in tasks if t["execution"]["status"] == "success"]
    random.Random(42).shuffle(asked)
    assert sum(one in set(asked[:238]) for one in asked[267:]) == 20


def test_fact_task_id_identifies_nothing(real: Real) -> None:
    (note,) = [made for one in real[2].notes if isinstance(made := one.reason(), CommonId)]
    assert (note.field, note.value) == ("task.task_id", "task_1")


def test_fact_misrouted_roles(real: Real) -> None:
    out, _, data = real
    assert data.routing is not None and data.routing.flagged >= 20 and (data.routing.found or 0) > 0.5
    noted = [f for f in read_rows(out / "noted.jsonl", Finding) if f.rule == "misrouted"]
    assert any(
        f.role == "tester" and "Implement" in f.task and f.reason == LooksLikeRole("coder").record() for f in noted
    )


def test_fact_other_system_prompts_are_said(tmp_path: Path, embedded: GgufFile) -> None:
    if not REAL_LOG.is_file():
        pytest.skip("the real log is not here")
    config = Config.model_validate({"roles": {"coder": {"system_prompt": "You are an expert coder."}}})
    ingest(sources_of([REAL_LOG]), config.data, config.redact, tmp_path, SilentReporter())
    data = curate(tmp_path / "interactions.jsonl.zst", config, embedded, tmp_path, SilentReporter())
    assert any(note.code == "prompt_replaced" and note.details["configured"] for note in data.notes)
    assert data.system_prompts["tester"].startswith("You are a tester agent with capabilities: ")


def test_fact_lengths(real: Real) -> None:
    lengths = real[2].lengths
    assert lengths is not None
    assert (round(lengths.mean_prompt), round(lengths.mean_output), round(lengths.mean_total)) == (86, 449, 535)
    assert 690 <= lengths.longest <= 700 and round(lengths.padding_waste, 2) == 0.74


def test_the_report_shows_rules_examples_and_escapes_them(tmp_path: Path, tiny: GgufFile) -> None:
    rows = [row(n, task(n), f"answer {n}") for n in range(30)]
    rows[2]["execution"] |= {"status": "failure", "errors": ["<script>alert(1)</script>"]}
    run(tmp_path, tiny, rows)
    page = (tmp_path / "lint.html").read_text()
    assert "29 of 30 rows are kept" in page and "&lt;script&gt;" in page and "<script>" not in page
    assert "http://" not in page and "https://" not in page


def test_training_rows_without_an_end_are_warned_of() -> None:
    cut = np.array([True] * 4 + [False] * 6)
    (note,) = _endless(cut, Config())
    assert note == CutTrainingRows(4, 10)
    assert _endless(cut[1:], Config()) == [] == _endless(cut[:0], Config())
    assert _endless(cut, Config.model_validate({"curate": {"rules": {"truncated": "drop"}}})) == []
