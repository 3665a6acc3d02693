"""What does the port cost? Tokens per second and time to first token through it, against the engine alone.

    python benchmarks/serving.py [--clients 1 4 16] [--requests 8] [--tokens 64] [--threads N]

The embedded model with three adapters of random values, one for each of three roles, which take turns. Engine and
slots are the same in both cases: one engine process runs, and clients ask it directly, with the role's adapter in the
request, or through the port. Both sides alternate, so that a slower minute meets both. Every request streams its
answer; the time to first token is that of the first piece of text.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
from serving_port import ROLES, SLOTS, report, running_port

QUESTION = "Write a story about a lighthouse. Number {number}."


@dataclass
class Side:
    """One way to ask: the URL, and what a request for a role contains."""

    url: str
    headers: dict[str, str]
    of_role: dict[str, dict[str, Any]]


@dataclass
class Measured:
    first_s: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    def summary(self) -> dict[str, float]:
        first = sorted(self.first_s)
        return {
            "tokens_per_s": round(self.tokens / self.seconds, 2),
            "first_token_p50_ms": round(1000 * statistics.median(first), 2),
            "first_token_p99_ms": round(1000 * first[min(len(first) - 1, int(0.99 * len(first)))], 2),
            "requests": len(first),
        }


async def ask(http: httpx.AsyncClient, side: Side, number: int, tokens: int, measured: Measured) -> None:
    """One streamed answer, timed from before the request is sent."""
    turns = [{"role": "user", "content": QUESTION.format(number=number)}]
    body = {
        "messages": turns, "max_tokens": tokens, "temperature": 0.0, "stream": True,
        "stream_options": {"include_usage": True}, **side.of_role[ROLES[number % len(ROLES)]],
    }  # fmt: skip
    start, first = time.perf_counter(), None
    async with http.stream("POST", f"{side.url}/v1/chat/completions", json=body, headers=side.headers) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            assert "error" not in event, event
            if first is None and any(choice["delta"].get("content") for choice in event["choices"]):
                first = time.perf_counter()
            if event.get("usage"):
                measured.tokens += event["usage"]["completion_tokens"]
    measured.first_s.append((first or time.perf_counter()) - start)


async def load(side: Side, clients: int, requests: int, tokens: int, begin: int) -> Measured:
    """`requests` of each of several clients, each of which waits for its answer before it asks again."""
    measured = Measured()
    limits = httpx.Limits(max_keepalive_connections=0)  # as the port asks the engine

    async def client(place: int) -> None:
        async with httpx.AsyncClient(timeout=600, trust_env=False, limits=limits) as http:
            for turn in range(requests):
                await ask(http, side, begin + place + turn * clients, tokens, measured)

    start = time.perf_counter()
    await asyncio.gather(*(client(place) for place in range(clients)))
    measured.seconds = time.perf_counter() - start
    return measured


def compare(direct: Side, port: Side, clients: int, requests: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Both sides in turn, `rounds` times each; the sums of each side."""
    sums = {"engine": Measured(), "port": Measured()}
    for number in range(rounds):
        order = [("engine", direct), ("port", port)]
        for name, side in order if number % 2 == 0 else reversed(order):
            one = asyncio.run(load(side, clients, requests, tokens, 10_000 * number))
            sums[name].first_s += one.first_s
            sums[name].tokens += one.tokens
            sums[name].seconds += one.seconds
    found: dict[str, Any] = {name: one.summary() for name, one in sums.items()}
    found["port_share_of_tokens_per_s"] = round(found["port"]["tokens_per_s"] / found["engine"]["tokens_per_s"], 4)
    for quantile in ("p50", "p99"):
        key = f"first_token_{quantile}_ms"
        found[f"added_{key}"] = round(found["port"][key] - found["engine"][key], 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--requests", type=int, default=8, help="of each client and round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--base", default="embedded", help="what base.model may name")
    args = parser.parse_args()
    with running_port(args.base, args.threads) as running:
        place = running.place
        direct = Side(place["engine"], place["headers"], place["lora"])
        port = Side(running.url, {}, {role: {"model": role} for role in ROLES})
        asyncio.run(load(direct, 2, 3, 8, 0))  # both are warm
        asyncio.run(load(port, 2, 3, 8, 0))
        counted = {
            str(count): compare(direct, port, count, args.requests, args.tokens, args.rounds) for count in args.clients
        }
    found = {"engine": place["identity"], "processor": os.cpu_count(), "threads": args.threads, "slots": SLOTS}
    report("serving", {**found, "tokens": args.tokens, "clients": counted})


if __name__ == "__main__":
    main()
