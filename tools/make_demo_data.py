"""Makes the demo's interactions: `python tools/make_demo_data.py`, deterministic, about a minute.

About 280 clean rows of five roles, in the proportions of a real agent log, plus planted dirty ones that curate must
find. Every clean answer is judged by its role's checks before it is written; one that does not pass ends the script.
No row claims a model or a duration, because there was none.

The house style, which an untuned model cannot know:
    coder        prefix `do_`, parameter `items` or `text`, type hints, a one-line docstring "Return …"
    tester       one function per case: `test_<function>_case_<n>() -> None`, one assertion each
    researcher   JSON with "finding" and the number of the note that contains it
    coordinator  JSON plan with one step per role, in house order, reviewer last
    reviewer     JSON list of findings with line, rule and fix
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from journeyman.manifests import CheckRule
from journeyman.scoring.checks import Checks, judge
from journeyman.scoring.contracts import Answer, Limits

OUT = Path(__file__).parents[1] / "src/journeyman/demo/interactions.jsonl"
COUNTS = {"coder": 165, "tester": 69, "researcher": 25, "coordinator": 19, "reviewer": 2}
CHECKS = {
    "coder": ["answered", "python_tests"],
    "tester": ["answered", "regex", "catches_mutants"],
    "researcher": ["answered", "json_schema"],
    "coordinator": ["answered", "json_schema"],
    "reviewer": ["answered", "json_schema"],
}
CAPABILITIES = {
    "coder": ["code", "implement", "fix"],
    "tester": ["test", "verify", "check"],
    "researcher": ["research", "find", "document"],
    "coordinator": ["plan", "delegate", "schedule"],
    "reviewer": ["review", "inspect", "approve"],
}
MAX_TOKENS = 200
MAX_SIMILARITY = 0.7


@dataclass
class Row:
    role: str
    task: str
    answer: str | None
    check: dict[str, Any] = field(default_factory=dict)
    status: str = "success"
    errors: list[str] = field(default_factory=list)
    provider: str = "scripted"
    max_tokens: int = MAX_TOKENS
    planted: str | None = None


# --- functions: each combines a selection, a change and a summary ---------------------------------------

SELECTIONS = {  # name: (condition on n, words)
    "even": ("n % 2 == 0", "even numbers"),
    "odd": ("n % 2 == 1", "odd numbers"),
    "positive": ("n > 0", "positive numbers"),
    "negative": ("n < 0", "negative numbers"),
    "nonzero": ("n != 0", "numbers that are not zero"),
    "big": ("n > 10", "numbers above ten"),
    "small": ("n < 10", "numbers below ten"),
    "fives": ("n % 5 == 0", "multiples of five"),
    "threes": ("n % 3 == 0", "multiples of three"),
}
CHANGES = {  # name: (expression of n, words)
    "squares": ("n * n", "the squares of the"),
    "cubes": ("n ** 3", "the cubes of the"),
    "doubles": ("n * 2", "twice the"),
    "halves": ("n // 2", "half of the"),
    "opposites": ("-n", "the opposites of the"),
    "successors": ("n + 1", "one more than the"),
    "predecessors": ("n - 1", "one less than the"),
    "sizes": ("abs(n)", "the absolute values of the"),
}
SUMMARIES = {  # name: (template, return type, verb in the task, words in the docstring)
    "sum": ("sum({0})", "int", "Add up", "the sum of"),
    "list": ("[{0}]", "list[int]", "Collect", "a list of"),
    "sorted": ("sorted({0})", "list[int]", "Put in order", "a sorted list of"),
    "max": ("max(({0}), default=0)", "int", "Find the largest of", "the largest of"),
    "min": ("min(({0}), default=0)", "int", "Find the smallest of", "the smallest of"),
}
WORD_SELECTIONS = {
    "long": ("len(word) > 4", "words longer than four letters"),
    "short": ("len(word) < 4", "words shorter than four letters"),
    "capital": ("word[0].isupper()", "capitalized words"),
    "vowel": ('word[0] in "aeiou"', "words that start with a vowel"),
    "digit": ("word.isdigit()", "words made of digits"),
    "plural": ('word.endswith("s")', "words that end in s"),
}
WORD_CHANGES = {
    "upper": ("word.upper()", "the upper case of the"),
    "lower": ("word.lower()", "the lower case of the"),
    "reversed": ("word[::-1]", "the reverse of the"),
    "initials": ("word[0]", "the first letters of the"),
}
WORD_SUMMARIES = {
    "list": ("[{0}]", "list[str]", "Collect", "a list with"),
    "joined": ('"-".join({0})', "str", "Join with dashes", "one string with"),
    "set": ("{{{0}}}", "set[str]", "Gather without repeats", "a set with"),
}
NUMBERS = [[3, -4, 20], [-5, 0, 6], [12, 5, 9], []]
TEXTS = ["Big cats run", "an Old apple", "7 ships SAIL", ""]


@dataclass(frozen=True)
class Function:
    name: str
    argument: str
    argument_type: str
    returns: str
    body: str
    task: str
    doc: str

    @property
    def source(self) -> str:
        return (
            f"def do_{self.name}({self.argument}: {self.argument_type}) -> {self.returns}:\n"
            f'    """Return {self.doc}."""\n    return {self.body}'
        )

    @property
    def inputs(self) -> list[Any]:
        return NUMBERS if self.argument == "items" else TEXTS

    def call(self, value: Any) -> Any:
        names: dict[str, Any] = {}
        exec(self.source, names)
        return names[f"do_{self.name}"](value)


def number_functions() -> Iterator[Function]:
    for (s, sel), (c, cha), (m, summ) in itertools.product(SELECTIONS.items(), CHANGES.items(), SUMMARIES.items()):
        inner = f"{cha[0]} for n in items if {sel[0]}"
        body = f"{m}(({inner}), default=0)" if m in ("max", "min") else summ[0].format(inner)
        words = f"{cha[1]} {sel[1]}"
        yield Function(
            f"{m}_{s}_{c}", "items", "list[int]", summ[1], body, f"{summ[2]} {words} in a list", f"{summ[3]} {words}"
        )


def text_functions() -> Iterator[Function]:
    for (s, sel), (c, cha), (m, summ) in itertools.product(
        WORD_SELECTIONS.items(), WORD_CHANGES.items(), WORD_SUMMARIES.items()
    ):
        body = summ[0].format(f"{cha[0]} for word in text.split() if {sel[0]}")
        words = f"{cha[1]} {sel[1]}"
        yield Function(
            f"{m}_{s}_{c}", "text", "str", summ[1], body, f"{summ[2]} {words} of a text", f"{summ[3]} {words}"
        )


# --- roles ----------------------------------------------------------------------------------------


def literal(value: Any) -> str:
    """The value as Python source; sets are sorted so that every run of this script writes the same file."""
    return "{" + ", ".join(map(repr, sorted(value))) + "}" if isinstance(value, set) and value else repr(value)


def coder_row(f: Function) -> Row:
    cases = "\n".join(f"assert do_{f.name}({value!r}) == {literal(f.call(value))}" for value in f.inputs)
    tests = (
        f"import inspect\n{cases}\n"
        f"_signature = inspect.signature(do_{f.name})\n"
        "assert all(p.annotation is not p.empty for p in _signature.parameters.values()), 'no type hint'\n"
        "assert _signature.return_annotation is not _signature.empty, 'no return type'\n"
        f"assert (do_{f.name}.__doc__ or '').startswith('Return '), 'no house docstring'\n"
    )
    return Row("coder", f"{f.task}. Name: {f.name}", f"```python\n{f.source}\n```", {"tests": tests})


def tester_row(f: Function, rng: random.Random) -> Row:
    values = rng.sample(f.inputs[:3], 2)
    cases = [(value, f.call(value)) for value in values]
    examples = ", ".join(f"do_{f.name}({value!r}) is {literal(result)}" for value, result in cases)
    tests = "\n\n\n".join(
        f"def test_{f.name}_case_{number}() -> None:\n    assert do_{f.name}({value!r}) == {literal(result)}"
        for number, (value, result) in enumerate(cases, start=1)
    )
    # Each mutant is right on one example and wrong on the other, so a test must cover both.
    wrong = [
        f"def do_{f.name}({f.argument}):\n    return {literal(other[1])} if {f.argument} == {other[0]!r} else 'wrong'"
        for other in cases
    ]
    pattern = rf"^def test_{f.name}_case_2\(\) -> None:"
    return Row(
        "tester",
        f"Test this: {examples}",
        f"```python\n{tests}\n```",
        {"right": f.source, "wrong": wrong, "pattern": pattern},
    )


THINGS = ["cache", "mailer", "billing", "search", "gateway", "scheduler", "archive", "ledger", "catalog", "notifier"]
ATTRIBUTES = {
    "port": ("listens on port {0}", "On which port does the {1} listen", ["7001", "8420", "9050", "6379", "5511"]),
    "owner": ("is owned by team {0}", "Which team owns the {1}", ["Heron", "Otter", "Falcon", "Badger", "Lynx"]),
    "language": ("is written in {0}", "In which language is the {1} written", ["Rust", "Go", "Java", "Elixir"]),
    "region": ("runs in {0}", "Where does the {1} run", ["Oslo", "Madrid", "Lima", "Osaka", "Accra"]),
    "limit": ("answers {0} requests a second", "How many requests a second does the {1} answer", ["40", "90", "250"]),
}  # fmt: skip


def researcher_rows(rng: random.Random) -> Iterator[Row]:
    for attribute, thing in rng.sample(list(itertools.product(ATTRIBUTES, THINGS)), 45):
        sentence, question, values = ATTRIBUTES[attribute]
        others = rng.sample([t for t in THINGS if t != thing], 2)
        facts = list(zip([thing, *others], rng.sample(values, 3), strict=True))
        rng.shuffle(facts)
        notes = " ".join(f"[{i}] The {t} {sentence.format(v)}." for i, (t, v) in enumerate(facts, start=1))
        place = next(i for i, (t, _) in enumerate(facts, start=1) if t == thing)
        finding = facts[place - 1][1]
        schema = object_schema(finding={"const": finding}, note={"const": place})
        yield Row(
            "researcher",
            f"{question.format('', thing)}? {notes}",
            json.dumps({"finding": finding, "note": place}),
            {"schema": schema},
        )


FEATURES = [
    "csv export", "dark mode", "password reset", "audit log", "rate limits", "file upload", "email digest",
    "team invites", "usage charts", "api keys", "search filters", "backup jobs", "card payments", "user avatars",
    "webhook retries", "single sign-on", "pdf invoices", "release notes", "map view", "offline sync", "chat threads",
    "tax reports",
]  # fmt: skip
PLAN_KINDS = {
    "a known change to": ["coder", "tester", "reviewer"],
    "an unknown field, so study first:": ["researcher", "coder", "tester", "reviewer"],
    "only a review of": ["reviewer"],
    "tests missing for": ["tester", "reviewer"],
}
VERBS = {"researcher": "study", "coder": "build", "tester": "test", "reviewer": "review"}


def coordinator_rows(rng: random.Random) -> Iterator[Row]:
    features = rng.sample(FEATURES, len(FEATURES))
    for feature, kind in zip(features, itertools.cycle(PLAN_KINDS), strict=False):
        roles = PLAN_KINDS[kind]
        plan = {"feature": feature, "steps": [{"role": role, "do": f"{VERBS[role]} {feature}"} for role in roles]}
        step_schemas = [object_schema(role={"const": role}, do={"type": "string", "minLength": 1}) for role in roles]
        steps = {"type": "array", "prefixItems": step_schemas, "minItems": len(roles), "maxItems": len(roles)}
        schema = object_schema(feature={"const": feature}, steps=steps)
        yield Row("coordinator", f"Plan {kind} {feature}", json.dumps(plan), {"schema": schema})


def reviewer_rows() -> Iterator[Row]:
    for source, line, rule, fix in (
        ("def total(items):\n    return sum(items)", 1, "prefix", "name it do_total"),
        ("def do_first(items: list[int]) -> int:\n    return items[0]", 2, "empty", "return 0 for an empty list"),
    ):
        item = object_schema(line={"const": line}, rule={"const": rule}, fix={"type": "string", "minLength": 1})
        schema = {"type": "array", "items": item, "minItems": 1, "maxItems": 1}
        answer = json.dumps([{"line": line, "rule": rule, "fix": fix}])
        yield Row("reviewer", f"Review this code:\n{source}", answer, {"schema": schema})


def object_schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


# --- dirt -----------------------------------------------------------------------------------------


def planted_rows(clean: list[Row]) -> Iterator[Row]:
    """The rows that curate must drop, each with the rule that must find it."""
    coders = [row for row in clean if row.role == "coder"]
    testers = [row for row in clean if row.role == "tester"]
    for number in range(3):
        yield Row("coder", f"Failing task number {number} of the outage", None, status="failure",
                  errors=["provider unreachable"], planted="failed")  # fmt: skip
    for number in range(2):
        yield Row("tester", f"Task {number} that nobody answered", "  \n", planted="empty")
    for row in (coders[3], coders[50], testers[7]):
        yield Row(row.role, row.task, row.answer, row.check, planted="duplicate")
    for row in (coders[10], coders[70], testers[20]):
        yield Row(row.role, f"{row.task} please", row.answer, row.check, planted="near_duplicate")
    for row in (coders[20], coders[90], testers[30]):
        assert row.answer is not None
        yield Row(row.role, f"Long version, with remarks: {row.task}", row.answer[:-20], max_tokens=40,
                  planted="truncated")  # fmt: skip
    for row in (coders[30], coders[110]):
        yield Row("coder", f"Think before you write: {row.task}", "<think>\nFirst I look at the name, then",
                  planted="unclosed_reasoning")  # fmt: skip
    yield Row("coder", "Write a function to calculate fibonacci numbers", "Mock response", provider="mock",
              planted="mock_provider")  # fmt: skip


MALFORMED = '{"id": "demo-malformed", "task": {"task_id": "task_1", "description": "cut here'


# --- putting it together --------------------------------------------------------------------------


def clean_rows(rng: random.Random) -> list[Row]:
    numbers, texts = list(number_functions()), list(text_functions())
    rng.shuffle(numbers)
    rng.shuffle(texts)
    coder = [coder_row(f) for f in numbers[:120] + texts[:45]]
    tester_functions = [f for f in numbers[120:] + texts[45:] if len({literal(f.call(v)) for v in f.inputs[:3]}) == 3]
    rng.shuffle(tester_functions)
    tester = [tester_row(f, rng) for f in tester_functions]
    rows = [*coder, *tester, *researcher_rows(rng), *coordinator_rows(rng), *reviewer_rows()]
    kept: list[Row] = []
    for role, count in COUNTS.items():
        mine: list[Row] = []
        for row in (r for r in rows if r.role == role):
            if len(mine) < count and all(similarity(row.task, other.task) < MAX_SIMILARITY for other in mine):
                mine.append(row)
        if len(mine) < count:
            raise SystemExit(f"{role}: only {len(mine)} of {count} rows are different enough")
        kept += mine
    return kept


def similarity(left: str, right: str) -> float:
    """Jaccard similarity of the word trigrams, as curate measures it."""
    a, b = (set(zip(w, w[1:], w[2:], strict=False)) for w in (re.findall(r"\w+", t.lower()) for t in (left, right)))
    return len(a & b) / len(a | b) if a | b else 0.0


def verify(row: Row) -> None:
    answer = Answer(row.answer or "", "stop", row.check, Limits())
    made = judge(answer, CheckRule(checks=CHECKS[row.role]), Checks(Path()))
    if made.finding.outcome != "pass":
        raise SystemExit(f"{row.role}: {row.task!r}: {made.check}: {made.finding.why()}\n{row.answer}")


def as_log(row: Row, number: int) -> dict[str, Any]:
    system = (
        f"You are a {row.role} agent with capabilities: {', '.join(CAPABILITIES[row.role])}.\n"
        "Complete the given task using your expertise."
    )
    when = datetime(2025, 10, 1, 9, tzinfo=UTC) + timedelta(minutes=number)
    log: dict[str, Any] = {
        "id": f"demo-{number:03d}",
        "timestamp": when.isoformat(),
        "task": {"task_id": "task_1", "description": row.task, "priority": 1},
        "agent": {"role": row.role, "capabilities": CAPABILITIES[row.role]},
        "llm": {
            "provider": row.provider,
            "model": None,
            "config": {"temperature": 0.0, "max_tokens": row.max_tokens},
        },
        "execution": {
            "status": row.status,
            "duration_ms": None,
            "input_messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": f"Task: {row.task}"},
            ],
            "output": row.answer,
            "errors": row.errors,
            "error_details": None,
        },
        "context": {"history_length": 0, "orchestrator": "script"},
        "check": row.check,
    }
    if row.planted:
        log["context"]["planted"] = row.planted
    return log


def main() -> None:
    rng = random.Random(20251001)
    clean = clean_rows(rng)
    for row in clean:
        verify(row)
    planted = list(planted_rows(clean))
    shuffled = rng.sample(clean, len(clean))
    rows = list(interleave(shuffled, planted))
    lines = [json.dumps(as_log(row, number), ensure_ascii=False) for number, row in enumerate(rows, start=1)]
    lines.insert(len(lines) // 2, MALFORMED)
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(clean)} clean and {len(rows) - len(clean)} planted rows and 1 malformed line in {OUT}")


def interleave(clean: list[Row], planted: list[Row]) -> Iterable[Row]:
    """Puts the planted rows into the second half, so that a duplicate comes after the row that it repeats."""
    half = len(clean) // 2
    planted = list(planted)
    yield from clean[:half]
    rest = clean[half:]
    step = max(1, len(rest) // len(planted))
    tail: list[Row] = []
    for index, row in enumerate(rest):
        yield row
        if index % step == step - 1 and planted:
            candidate = planted.pop(0)
            if candidate.planted in ("duplicate", "near_duplicate"):
                tail.append(candidate)
            else:
                yield candidate
    yield from [*tail, *planted]


if __name__ == "__main__":
    main()
