"""Are answers lost or mixed up, and does memory grow, over many requests?

    python benchmarks/serving_endurance.py [--requests 100000] [--clients 8] [--base tiny]

Requests in all four APIs, streamed and whole, with one and with two answers, for three roles with adapters of their
own, in turns. An answer proves whose it is: its schema allows only the number that is in the request. Completions have
no schema; they ask each role the same question, whose answer was fetched before and is another one for each role. A
stream without its end is lost. Memory of the port and of the engine is recorded as it goes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from serving_port import ROLES, Port, report, running_port

KINDS = ("chat", "chat n=2", "responses", "messages", "completions")
QUESTION = "Who are you?"
MOST = 300
"""Tokens of an answer: a schema allows spaces, which a model with random values likes."""


@dataclass
class Found:
    """Counts of the answers; `examples` shows the first that were not right."""

    kinds: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    mixed_up: int = 0
    wrong_adapter: int = 0
    examples: list[str] = field(default_factory=list)
    memory: list[dict[str, Any]] = field(default_factory=list)


def asked(kind: str, number: int, role: str, stream: bool) -> tuple[str, dict[str, Any]]:
    """Path and body of a request."""
    schema: dict[str, Any] = {"const": number}
    turns = [{"role": "user", "content": f"Say {number}."}]
    body: dict[str, Any] = {"model": role, "stream": stream, "temperature": 0}
    if kind == "responses":
        form = {"type": "json_schema", "name": "n", "schema": schema}
        return "responses", {**body, "input": turns, "text": {"format": form}, "max_output_tokens": MOST}
    if kind == "messages":
        of_object = {"type": "object", "properties": {"n": schema}, "required": ["n"]}
        tool, choice = {"name": "say", "input_schema": of_object}, {"type": "tool", "name": "say"}
        return "messages", {**body, "messages": turns, "tools": [tool], "tool_choice": choice, "max_tokens": MOST}
    if kind == "completions":
        return "completions", {**body, "prompt": QUESTION, "max_tokens": 8}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    copies = {"n": 2} if kind == "chat n=2" else {}
    return "chat/completions", {**body, "messages": turns, "response_format": form, "max_tokens": MOST, **copies}


def texts_of(kind: str, content: str, stream: bool) -> list[str]:
    """The texts of an answer's choices.

    Raises:
        KeyError, IndexError, ValueError: it is not complete.
    """
    if not stream:
        whole = json.loads(content)
        if kind == "responses":
            return [str(whole["output"][-1]["content"][0]["text"])]
        if kind == "messages":
            return [json.dumps(whole["content"][-1]["input"])]
        return [str(one["message"]["content"] if "message" in one else one["text"]) for one in whole["choices"]]
    data = [line[6:] for line in content.split("\n") if line.startswith("data: ")]
    events = [json.loads(one) for one in data if one != "[DONE]"]
    if kind in ("responses", "messages"):
        end = {"responses": "response.completed", "messages": "message_stop"}[kind]
        if events[-1]["type"] != end:
            raise ValueError("the end is missing")
        deltas = [event["delta"] for event in events if event["type"].endswith("delta")]
        return ["".join(one if isinstance(one, str) else one.get("partial_json", "") for one in deltas)]
    if data[-1] != "[DONE]":
        raise ValueError("the end is missing")
    texts: Counter[int] = Counter()
    found: dict[int, str] = {}
    for choice in (choice for event in events for choice in event["choices"]):
        text = choice["delta"].get("content") if "delta" in choice else choice["text"]
        found[choice["index"]] = found.get(choice["index"], "") + (text or "")
        texts[choice["index"]] += choice["finish_reason"] is not None
    if set(texts.values()) != {1}:
        raise ValueError("an answer has no end, or several")
    return [text for _, text in sorted(found.items())]


def judge(found: Found, kind: str, number: int, texts: list[str], wanted: str, others: set[str]) -> None:
    """Counts one answer."""
    if len(texts) != (2 if kind == "chat n=2" else 1):
        raise ValueError(f"{len(texts)} answers")
    for text in texts:
        if kind == "completions":
            right = text == wanted
            found.wrong_adapter += text in others
            found.mixed_up += not right and text not in others
        else:
            right = json.loads(text) == ({"n": number} if kind == "messages" else number)
            found.mixed_up += not right
        if not right and len(found.examples) < 20:
            found.examples.append(f"{kind} {number}: {text!r}, not {wanted!r}")


async def run(port: Port, total: int, clients: int) -> dict[str, Any]:
    found, numbers = Found(), iter(range(total))
    timeout = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=2 * clients)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, trust_env=False) as http:

        async def content(kind: str, number: int, role: str, stream: bool) -> str:
            path, body = asked(kind, number, role, stream)
            async with http.post(f"{port.url}/v1/{path}", json=body) as answer:
                text = await answer.text()
                if answer.status != 200:
                    raise ValueError(f"{answer.status}: {text[:200]}")
                return text

        own: dict[bool, dict[str, str]] = {True: {}, False: {}}  # a stream leaves out half a character at its end
        for stream, answers in own.items():
            for role in ROLES:
                (answers[role],) = texts_of("completions", await content("completions", 0, role, stream), stream)
            assert len(set(answers.values())) == len(ROLES), f"the adapters have too little effect: {answers}"

        async def client() -> None:
            for number in numbers:
                kind, role, stream = KINDS[number // 2 % len(KINDS)], ROLES[number % len(ROLES)], number % 2 == 0
                found.kinds[f"{kind}, {'streamed' if stream else 'whole'}"] += 1
                try:
                    texts = texts_of(kind, await content(kind, number, role, stream), stream)
                    wanted = own[stream][role]
                    judge(found, kind, number, texts, wanted, set(own[stream].values()) - {wanted})
                except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, IndexError, TypeError) as error:
                    found.lost += 1
                    if len(found.examples) < 20:
                        found.examples.append(f"{kind} {number}, stream {stream}: {error!r}")
                if number % max(1, total // 50) == 0:
                    found.memory.append(memory(port, number, start))

        start = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        found.memory.append(memory(port, total, start))
    seconds = time.perf_counter() - start
    return {
        "requests": total, "clients": clients, "seconds": round(seconds, 1), "per_second": round(total / seconds, 1),
        "lost": found.lost, "mixed_up": found.mixed_up, "wrong_adapter": found.wrong_adapter,
        "kinds": dict(sorted(found.kinds.items())), "examples": found.examples, "memory": found.memory,
    }  # fmt: skip


def memory(port: Port, requests: int, start: float) -> dict[str, Any]:
    engine = port.engine()
    return {
        "requests": requests, "seconds": round(time.perf_counter() - start, 1),
        "port_mib": port.process.memory_info().rss >> 20, "engine_mib": engine and engine.memory_info().rss >> 20,
        "port_files": port.process.num_fds(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--base", default="tiny", help="tiny, or what base.model may name")
    args = parser.parse_args()
    with running_port(args.base, args.threads, spread=0.5 if args.base == "tiny" else 0.02) as port:
        found = asyncio.run(run(port, args.requests, args.clients))
        result = {"engine": port.place["identity"], "processor": os.cpu_count(), "base": args.base, **found}
    report("serving_endurance", result)


if __name__ == "__main__":
    main()
