"""What counts as another look at the held-out test set; and that a bad row does not end an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fake_engine import ENGINE
from journeyman.artifacts import read_rows, write_rows
from journeyman.config import EvaluateConfig
from journeyman.errors import ChangedArtifact
from journeyman.evidence import LOOKS
from journeyman.inference.arm_runner import Gathered, Inputs
from journeyman.inference.sequential_testing import count_look
from journeyman.manifests import CheckRule, EvaluationManifest, PlanManifest, Rules
from journeyman.protocols import SilentReporter
from journeyman.records import Example, Message, Prediction, Score
from journeyman.stages import evaluate as stage

ROWS = 10


class _Told(SilentReporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class Evaluation:
    """A run's folder whose arms have answered; only the scoring is real."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.answer, self.checks, self.told = folder, "no", ["mine.py:right"], _Told()
        self.data: list[dict[str, Any]] = [{} for _ in range(ROWS)]
        self.own("return text == 'yes'")
        (folder / "adapter.gguf").write_bytes(b"weights")
        monkeypatch.setattr(stage, "ArmRunner", lambda *_: self)

    def own(self, body: str) -> None:
        (self.folder / "mine.py").write_text(f"def right(text, data):\n    {body}\n")

    def ask(self) -> Gathered:
        said = [
            Prediction(id=f"r{n}", role="coder", arm=arm, text=self.answer, finish_reason="stop", latency_s=0.1,
                       first_token_s=0.1, prompt_tokens=1, answer_tokens=1)
            for n in range(ROWS) for arm in ("teacher", "tuned")
        ]  # fmt: skip
        return Gathered(said, [], {}, {}, ["teacher", "tuned"], engine=ENGINE)

    def run(self, **settings: Any) -> EvaluationManifest:
        self._write_rows()
        rules = Rules(
            max_mean_latency_s=1, min_success=0.9, max_memory_gb=1, stretch_mean_latency_s=1, stretch_success=1,
            confidence=0.95, role_confidence=0.95, margin=None, regression_margin=0.1, files=["base.gguf"],
            checks={"coder": CheckRule(checks=self.checks)},
        )  # fmt: skip
        inputs = Inputs(
            self.folder / "sealed", self.folder / "train", {"all": self.folder / "adapter.gguf"}, [], self.folder
        )
        plan, config = PlanManifest.model_construct(rules=rules), EvaluateConfig(**settings)
        return stage.evaluate(inputs, plan, config, None, self.folder, self.told)  # type: ignore[arg-type]

    def _write_rows(self) -> None:
        write_rows(self.folder / "sealed", [
            Example(id=f"r{n}", role="coder", messages=[Message(role="user", content="?")], answer="yes", group=str(n),
                    prompt_tokens=1, answer_tokens=1, check=data)
            for n, data in enumerate(self.data)
        ])  # fmt: skip


@pytest.fixture
def evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    return Evaluation(tmp_path, monkeypatch)


def test_a_changed_user_check_is_another_look(evaluation: Evaluation) -> None:
    assert evaluation.run().look == 1
    assert evaluation.run().look == 1, "the same again is the same look"
    evaluation.own("return text == 'yes'  # or not")
    assert evaluation.run().look == 2
    evaluation.own("return text == 'yes'")
    assert evaluation.run().look == 1


def test_another_file_of_an_inspect_scorer_is_another_look(evaluation: Evaluation) -> None:
    evaluation.checks = ["inspect:mine.py:right"]
    source = "from inspect_ai.scorer import includes\ndef right():\n    return includes()\n"
    pytest.importorskip("inspect_ai")
    looks = []
    for more in ("", "# more\n"):
        (evaluation.folder / "mine.py").write_text(source + more)
        looks.append(evaluation.run().look)
    assert looks == [1, 2]


def test_every_decisive_setting_is_another_look(evaluation: Evaluation) -> None:
    evaluation.checks = ["answered"]
    tries: list[dict[str, Any]] = [
        {}, {"temperature": 0.3}, {"temperature": 0.6}, {"max_new_tokens": 64}, {"context": 512},
        {"check_timeout_s": 5},
        {"judge": {"url": "http://a/v1", "model": "m"}}, {"judge": {"url": "http://a/v1", "model": "n"}},
        {"endpoints": {"far": {"url": "http://a/v1", "model": "m"}}},
    ]  # fmt: skip
    assert [evaluation.run(**one).look for one in tries] == list(range(1, len(tries) + 1))
    assert evaluation.run(threads=1).look == 1, "the same answers to the same questions"
    evaluation.answer = ""
    assert evaluation.run().look == len(tries) + 1, "other verdicts, wherever they come from"


def test_a_damaged_record_of_looks_is_refused(tmp_path: Path) -> None:
    assert count_look(tmp_path, "a", {"n": 1}) == (1, 1)
    with (tmp_path / LOOKS).open("ab") as file:
        file.write(b'\xff{"sealed": "a", "jud')
    with pytest.raises(ChangedArtifact, match="the number of looks at this test set is not known"):
        count_look(tmp_path, "a", {"n": 2})


def test_bad_rows_do_not_end_an_evaluation(evaluation: Evaluation) -> None:
    """Rows' schemas, patterns and files that raised in version 0.4.0: each such row is unscored, the others count."""
    evaluation.answer = "{}"
    evaluation.checks = ["json_schema", "regex", "patch_applies"]
    bad: list[dict[str, Any]] = [
        {"schema": {"pattern": "("}}, {"schema": {"type": 5}}, {"schema": {"$ref": "#"}},
        {"schema": {"$ref": "#/none"}},
        {"schema": {}, "pattern": "("}, {"schema": {}, "pattern": "", "files": {"": ""}},
        {"schema": {}, "pattern": "", "files": {"a": "", "a/b": ""}},
        {"schema": {}, "pattern": "", "files": {"a\0": ""}},
        {"schema": {}, "pattern": "", "files": {".git/config": ""}},
    ]  # fmt: skip
    evaluation.data = [*bad, {"schema": {}, "pattern": "", "files": {"f": "x\n"}}]
    made = evaluation.run()
    arm = made.roles["coder"].arms["tuned"]
    assert arm.unscored == len(bad) and arm.success is not None and arm.success.n == 1
    verdicts = list(read_rows(evaluation.folder / "scores.jsonl", Score))
    assert all(one.reason for one in verdicts if one.outcome == "unscored")
    assert any("answers unscored by json_schema, for example row r0: " in line for line in evaluation.told.lines)
