"""Reading of requests: the model's name is replaced where that is certain; large bodies do not hold up the others."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from journeyman.config import RecordConfig
from journeyman.gateway import bodies
from journeyman.gateway.plans import Asked
from journeyman.routing import requests
from journeyman.routing.requests import SMALL_BYTES, RequestReader, StudentRequest, named
from two_upstreams import both, chat

FALLBACK = '[route.roles.coder]\nmode = "fallback"\n'
CHAT = "/v1/chat/completions"
TURN = {"role": "user", "content": "Q"}


def asked(body: bytes, coding: str = "") -> Asked:
    head = {"headers": {"content-type": "application/json"}, "coding": coding}
    return Asked(1, "POST", CHAT, CIMultiDict(), body, head)


def read(body: bytes, coding: str = "", most_mib: int = 1) -> StudentRequest | None:
    reader = RequestReader(RecordConfig(max_body_mib=most_mib))
    try:
        return asyncio.run(reader.read(asked(body, coding)))
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ('{"model": "gpt", "x": 1e400, "y": 1.0, "z": "ä"}', True),
        ('{ "x": [1], "model" :\n "g\\"p\\\\t" , "y": 2 }', True),
        ('{"model": "role"}', True),
        ('{"model": "\\u0061", "x": "\\u00e9"}', True),
        ('{"x": {"model": "a"}, "model": "b"}', False),
        ('{"model": "a", "tools": [{"model": {}}]}', False),
        ('{"mod\\u0065l": "a", "x": {"model": "a"}}', False),
        ('{"model": "a", "mod\\u0065l": "b"}', False),
        ('{"model": "a", "model": "b"}', False),
        ('{"model": "a", "x": "model"}', False),
        ('{"x": "say \\"model", "mod\\u0065l": "a"}', False),
        ('{"x": {"model": "a"}}', False),
        ('{"x": "\\"model\\": \\"a\\"", "model": "a"}', True),
        ('{"x": "\\\\\\"model", "model": "a"}', False),
        ('{"model": 5}', False),
        ('{"model": null}', False),
        ('{"x": 1}', False),
    ],
)  # fmt: skip
def test_the_role_becomes_the_model_and_nothing_else_changes(body: str, kept: bool) -> None:
    value, data = json.loads(body), body.encode()
    made = named(data, value, "role")
    assert json.loads(made) == {**value, "model": "role"}
    name = json.dumps(value["model"]).encode() if isinstance(value.get("model"), str) else b""
    if kept and "\\u0061" not in body:
        assert made == data.replace(name, b'"role"', 1)


def test_that_holds_for_random_bodies() -> None:
    dice = random.Random(0)
    words = ["model", "a", '"model"', 'x"', "\\", '\\"model', ":", "mod", "el", "ü\ud800", "{", '"model": "a"']

    def value(depth: int) -> Any:
        kind = dice.randrange(5 if depth else 2)
        if kind == 4:
            return [value(depth - 1) for _ in range(dice.randrange(3))]
        if kind >= 2:
            return {word(): value(depth - 1) for _ in range(dice.randrange(3))}
        return word() if kind else dice.random()

    def word() -> str:
        return "".join(dice.choices(words, k=dice.randint(1, 3))) if dice.random() < 0.7 else dice.choice(words)

    def escaped(text: str) -> str:
        """Some letters of keys and texts are written as escapes."""
        return text.replace("d", "\\u0064") if dice.random() < 0.3 else text

    for _ in range(3000):
        body = {"a": value(3), **({"model": word()} if dice.random() < 0.8 else {}), "b": value(3)}
        data = escaped(json.dumps(body)).encode()
        assert json.loads(named(data, body, "role")) == {**body, "model": "role"}


@pytest.mark.parametrize("tools", [[], [{"model": "x"}]])
def test_a_large_body_is_read_and_written_in_another_thread(monkeypatch: pytest.MonkeyPatch, tools: list[Any]) -> None:
    threads: list[str] = []

    def noting(function: Any) -> Any:
        def noted(*args: Any, **options: Any) -> Any:
            threads.append(threading.current_thread().name)
            return function(*args, **options)

        return noted

    monkeypatch.setattr(requests, "text_of", noting(requests.text_of))
    monkeypatch.setattr(requests, "named", noting(requests.named))

    async def both_of(body: dict[str, Any]) -> dict[str, Any]:
        reader = RequestReader(RecordConfig())
        found = await reader.read(asked(json.dumps(body).encode()))
        assert found is not None
        made: dict[str, Any] = json.loads(
            await reader.named(StudentRequest(found.asked, "r", "", found.body, found.data))
        )
        reader.close()
        return made

    large = {"model": "m", "messages": [{**TURN, "n": n} for n in range(10_000)], "tools": tools, "f": 0.5}
    assert len(json.dumps(large)) > SMALL_BYTES
    assert asyncio.run(both_of(large)) == {**large, "model": "r"}
    assert len(threads) == 2 and all(name.startswith("large requests") for name in threads)
    threads.clear()
    small = {"model": "m", "messages": [TURN]}
    assert asyncio.run(both_of(small)) == {**small, "model": "r"}
    assert threads == ["MainThread"] * 2


def test_the_parser_lets_other_threads_run_while_it_reads_a_large_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one call of C code otherwise, in which no other thread runs."""
    turns = []
    monkeypatch.setattr(bodies, "_same", lambda value: turns.append(1) or value)
    monkeypatch.setattr(bodies, "_whole_number", lambda digits: turns.append(1) or int(digits))
    for many in ({"messages": [TURN] * 20_000}, {"prompt": list(range(100_000))}):
        turns.clear()
        body = {"model": "m", **many}
        data = json.dumps(body).encode()
        assert len(data) > SMALL_BYTES
        found = read(data)
        assert found is not None and found.body == body
        assert len(turns) >= 20_000


def test_a_body_that_unpacks_to_more_than_a_request_may_have_is_not_for_the_student() -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "a" * (2 << 20)}]}).encode()
    for coding, packed in (("deflate", zlib.compress(body, 9)), ("gzip", gzip.compress(body))):
        assert len(packed) < 10_000
        assert read(packed, coding) is None
        found = read(packed, coding, most_mib=3)
        assert found is not None and found.data == body
    assert read(b"x", "br") is None and read(b"x", "gzip") is None


def test_a_packed_body_reaches_the_student_unpacked_and_the_teacher_as_it_was_sent(tmp_path: Path) -> None:
    body = {"model": "coder", "messages": [{"role": "user", "content": "Q" * 3000}]}
    settings = '[route.roles.coder]\nmode = "shadow"\n'
    sent = {"Content-Encoding": "gzip"}
    packed = gzip.compress(json.dumps(body).encode())
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat("S"), FALLBACK) as one:
        assert one.post(CHAT, packed, sent)[1]["journeyman-answered-by"] == "student"
        assert json.loads(one.asked_student[0].body) == body
        assert "Content-Encoding" not in one.asked_student[0].headers
    with both(tmp_path, lambda seen: chat("T"), lambda seen: chat("S"), settings) as one:
        one.post(CHAT, packed, sent)
        assert one.teacher.seen[0].body == packed


@pytest.mark.parametrize(
    ("body", "begun"),
    [
        ({"messages": [TURN]}, False),
        ({"messages": [{"role": "system", "content": "s"}, TURN, TURN]}, False),
        ({"messages": [TURN, {"role": "assistant", "content": "{"}]}, False),  # to be continued
        ({"messages": [TURN, {"role": "assistant", "content": "A"}, TURN]}, True),
        ({"messages": [TURN, {"role": "tool", "content": "r"}]}, True),
        ({"input": "Q"}, False),
        ({"input": [TURN]}, False),
        ({"input": [TURN, {"type": "function_call"}, {"type": "function_call_output"}]}, True),
        ({"input": [{"type": "function_call_output"}]}, True),
        ({"messages": []}, False),
        ({"messages": "Q"}, False),
        ({"messages": [None, 5]}, False),
        ({"prompt": "Q"}, False),
    ],
)
def test_a_request_goes_on_with_a_conversation_if_something_was_answered_before(
    body: dict[str, Any], begun: bool
) -> None:
    assert StudentRequest(asked(b""), "r", "", body, b"").begun is begun
