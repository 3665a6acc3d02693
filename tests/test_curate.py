"""Rules, duplicates, splits, and the dirt planted in the demo."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conftest import REAL_LOG, log_row
from journeyman.artifacts import read_rows
from journeyman.config import Config
from journeyman.curation.duplicates import clusters, jaccard, near_pairs, trigrams
from journeyman.curation.rules import RULES, strip_reasoning
from journeyman.curation.split import leaked_groups, split_rows
from journeyman.errors import InputError
from journeyman.manifests import DatasetManifest
from journeyman.ports import SilentReporter
from journeyman.records import Drop, Example, Interaction, Rejected
from journeyman.rendering.renderer import Renderer
from journeyman.scoring.checks import Answer, judge
from journeyman.scoring.sandbox import Limits
from journeyman.stages.curate import curate
from journeyman.stages.ingest import ingest

DEMO = Path(__file__).parents[1] / "src/journeyman/demo"


def _curate(log: Path, out: Path, renderer: Renderer, config: Config | None = None) -> DatasetManifest:
    ingest([log], out, SilentReporter())
    return curate(out / "interactions.jsonl.zst", config or Config(), renderer, out, SilentReporter())


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, renderer: Renderer) -> tuple[Path, DatasetManifest]:
    out = tmp_path_factory.mktemp("demo")
    return out, _curate(DEMO / "interactions.jsonl", out, renderer)


def test_every_planted_row_is_found_by_its_rule_and_nothing_else_is_dropped(
    demo: tuple[Path, DatasetManifest],
) -> None:
    out, manifest = demo
    planted = {
        row.id: row.extra["context"]["planted"]
        for row in read_rows(out / "interactions.jsonl.zst", Interaction)
        if "planted" in row.extra["context"]
    }
    found = {drop.id: drop.rule for drop in read_rows(out / "dropped.jsonl", Drop)}
    assert found == planted
    assert Counter(planted.values()) == {
        "failed": 3, "empty": 2, "duplicate": 3, "near_duplicate": 3, "truncated": 3, "unclosed_reasoning": 2,
        "mock_provider": 1,
    }  # fmt: skip
    assert [row.line for row in read_rows(out / "rejected.jsonl", Rejected)] == [149]
    assert manifest.rows_in == manifest.kept + len(planted) == 297


def test_no_test_row_is_near_a_training_row(demo: tuple[Path, DatasetManifest]) -> None:
    out, _ = demo
    train = [trigrams(row.messages[-1].content) for row in read_rows(out / "train.jsonl", Example)]
    for row in read_rows(out / "sealed/test.jsonl", Example):
        assert max(jaccard(trigrams(row.messages[-1].content), other) for other in train) < 0.7


def test_the_demo_answers_pass_their_own_checks(demo: tuple[Path, DatasetManifest]) -> None:
    from journeyman.config import load_config

    out, _ = demo
    config = load_config(DEMO / "journeyman.toml")
    for row in list(read_rows(out / "train.jsonl", Example))[::6]:
        _, finding = judge(Answer(row.answer, "stop", row.check, Limits()), config.role(row.role).checks)
        assert finding.outcome == "pass", (row.id, finding)


def test_the_demo_claims_no_teacher_and_no_duration() -> None:
    for line in (DEMO / "interactions.jsonl").read_text().splitlines():
        if "demo-malformed" in line:
            continue
        row = json.loads(line)
        assert row["llm"]["provider"] in ("scripted", "mock") and row["llm"]["model"] is None
        assert row["execution"]["duration_ms"] is None


@pytest.mark.skipif(not REAL_LOG.is_file(), reason="the real log is not here")
def test_the_real_log_splits_without_a_leak(tmp_path: Path, renderer: Renderer) -> None:
    manifest = _curate(REAL_LOG, tmp_path, renderer)
    assert manifest.dropped["failed"] == 4
    assert manifest.dropped["mock_provider"] == 1
    assert manifest.dropped["unclosed_reasoning"] == 64
    tasks = {
        name: {row.messages[-1].content for row in read_rows(tmp_path / path, Example)}
        for name, path in (("train", "train.jsonl"), ("val", "val.jsonl"), ("test", "sealed/test.jsonl"))
    }
    assert tasks["test"] and not tasks["test"] & (tasks["train"] | tasks["val"])


def _interaction(**changes: Any) -> Interaction:
    values: dict[str, Any] = {
        "id": "a", "source": "f:1", "role": "coder", "messages": [{"role": "user", "content": "x"}],
        "output": "fine", "succeeded": True, **changes,
    }  # fmt: skip
    return Interaction.model_validate(values)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({}, None),
        ({"succeeded": False}, "failed"),
        ({"output": " \n"}, "empty"),
        ({"output": None}, "empty"),
        ({"provider": "mock"}, "mock_provider"),
        ({"output": "<think>a</think>b<think>c"}, "unclosed_reasoning"),
        ({"output": "<think>a</think>b"}, None),
        ({"output": "```python\nx = 1"}, "truncated"),
        ({"finish_reason": "length"}, "truncated"),
    ],
)
def test_rules(changes: dict[str, Any], rule: str | None) -> None:
    row = _interaction(**changes)
    found = next((r.__name__ for r in RULES if r(row, Config().curate)), None)
    assert found == rule


def test_reasoning_is_stripped() -> None:
    assert strip_reasoning("<think>\nhm\n</think>\n\nyes") == "yes"
    assert strip_reasoning("yes") == "yes"


def test_near_pairs_equal_brute_force() -> None:
    words = ["sort", "the", "list", "of", "red", "cars", "by", "age", "and", "name"]
    texts = [" ".join([*words[:n], f"end{n % 3}"]) for n in range(3, 10)] * 2
    sets = [trigrams(text) for text in texts]
    expected = {(i, j) for j in range(len(sets)) for i in range(j) if jaccard(sets[i], sets[j]) >= 0.7}
    assert set(near_pairs(texts, 0.7)) == expected
    roots = clusters(len(texts), sorted(expected))
    assert all(roots[i] == roots[j] for i, j in expected)


def _example(number: int, role: str, group: str) -> Example:
    return Example(id=str(number), role=role, messages=[], answer="x", group=group, prompt_tokens=1, answer_tokens=1)


def test_split_is_stratified_and_whole_groups_stay_together() -> None:
    rows = [_example(i, "coder" if i % 3 else "tester", f"g{i // 2}") for i in range(120)]
    splits = split_rows(rows, 0.1, 0.1, seed=1)
    assert not leaked_groups(splits)
    assert sum(map(len, splits.values())) == 120
    for role, total in (("coder", 80), ("tester", 40)):
        test = sum(row.role == role for row in splits["test"])
        assert 0 < test <= total * 0.2
    assert splits == split_rows(rows, 0.1, 0.1, seed=1)
    assert splits != split_rows(rows, 0.1, 0.1, seed=2)


def test_leaks_are_seen() -> None:
    row = _example(1, "coder", "g")
    assert leaked_groups({"train": [row], "test": [row], "val": []}) == {"g"}


def test_a_role_with_one_row_trains_and_is_never_tested(tmp_path: Path, renderer: Renderer) -> None:
    rows = [log_row(i) for i in range(20)] + [log_row(99, role="reviewer")]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = _curate(tmp_path / "log.jsonl", tmp_path, renderer)
    assert manifest.splits["reviewer"].model_dump() == {"train": 1, "val": 0, "test": 0}


def test_a_configured_system_prompt_replaces_the_logged_one_and_is_noted(tmp_path: Path, renderer: Renderer) -> None:
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(log_row(i)) + "\n" for i in range(20)))
    config = Config.model_validate({"roles": {"coder": {"system_prompt": "Be brief."}}})
    manifest = _curate(tmp_path / "log.jsonl", tmp_path, renderer, config)
    assert manifest.system_prompts == {"coder": "Be brief."}
    assert manifest.notes == ["coder: 20 of 20 rows get another system prompt than logged (as configured)"]
    assert all(r.messages[0].content == "Be brief." for r in read_rows(tmp_path / "train.jsonl", Example))


def test_nothing_left_says_why(tmp_path: Path, renderer: Renderer) -> None:
    (tmp_path / "log.jsonl").write_text(json.dumps(log_row(1, output="")) + "\n")
    with pytest.raises(InputError, match=r"none of 1 interactions is left to train on \(empty 1\)"):
        _curate(tmp_path / "log.jsonl", tmp_path, renderer)
