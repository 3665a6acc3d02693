"""What does the port cost? Tokens per second and time to first token through it, against the engine alone.

    python benchmarks/serving.py [--clients 1 4 16] [--requests 8] [--tokens 64] [--threads N]
    python benchmarks/serving.py --long 100000 [--base FILE]

The embedded model with three adapters of random values, one for each of three roles, which take turns. Engine and
slots are the same in both cases: one engine process runs, and clients ask it directly, with the role's adapter in the
request, or through the port. Both sides alternate, so that a slower minute meets both. Every request streams its
answer; the time to first token is that of the first piece of text.

`--long` sends that many short requests through the port and checks whose answer each is: a request's user text has a
number, the schema of its answer allows this number only, so a mixed-up answer shows. It counts answers that are lost or
mixed up, and records the memory of the server and of the engine as it goes. The schema decides the text, so that any
small file will do as `--base`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch

from journeyman.api.hosting import Host, open_listener
from journeyman.config import LoraConfig, ServeConfig
from journeyman.inference.engines import running_engine
from journeyman.inference.llama import LlamaEngine
from journeyman.manifests import BundleManifest
from journeyman.models.gguf_file import GgufFile
from journeyman.models.opening import find_base
from journeyman.protocols import EngineSettings
from journeyman.training.export import write_gguf
from journeyman.training.lora import Adapter

RESULT = Path(__file__).parent / "results" / "serving.json"
ROLES = ("coder", "tester", "writer")
CONTEXT, SLOTS = 1024, 4
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


async def long_run(
    side: Side, total: int, clients: int, port: psutil.Process, engine: psutil.Process
) -> dict[str, Any]:
    """Short requests whose answers prove whose they are."""
    numbers = iter(range(total))
    lost, mixed, memory = 0, 0, []
    start = time.perf_counter()

    async def client(http: httpx.AsyncClient) -> None:
        nonlocal lost, mixed
        for number in numbers:
            schema = {"type": "object", "properties": {"n": {"const": number}}, "required": ["n"]}
            form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
            turns = [{"role": "user", "content": f"Say {number}."}]
            role = side.of_role[ROLES[number % len(ROLES)]]
            body = {"messages": turns, "max_tokens": 24, "response_format": form, "stream": number % 2 == 0, **role}
            text = ""
            with contextlib.suppress(httpx.HTTPError, ValueError, KeyError, IndexError):
                answer = await http.post(f"{side.url}/v1/chat/completions", json=body, headers=side.headers)
                text = _text(answer)
            try:
                mixed += json.loads(text) != {"n": number}
            except ValueError:
                lost += 1
            if number % max(1, total // 50) == 0:
                memory.append({
                    "requests": number, "seconds": round(time.perf_counter() - start, 1),
                    "port_mib": port.memory_info().rss >> 20, "engine_mib": engine.memory_info().rss >> 20,
                })  # fmt: skip

    async with httpx.AsyncClient(timeout=600, trust_env=False) as http:
        await asyncio.gather(*(client(http) for _ in range(clients)))
    return {"requests": total, "lost": lost, "mixed_up": mixed, "memory": memory}


def _text(answer: httpx.Response) -> str:
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return str(answer.json()["choices"][0]["message"]["content"])
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    return "".join(c["delta"].get("content") or "" for event in events for c in event["choices"])


def serve(folder: Path, threads: int | None, name: str) -> None:
    """The port and its engine, in a process of their own; prints where they are."""
    base = GgufFile(find_base(name, Path()))
    adapters = {}
    for number, role in enumerate(ROLES):
        adapter = Adapter(base.geometry, LoraConfig(rank=8), seed=number)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for name, value in adapter.parameters.items():
                if "lora_B" in name:  # zeros, with which an adapter has no effect
                    value.normal_(0, 0.002, generator=generator)
        adapters[role] = folder / f"{role}.gguf"
        write_gguf(adapter, adapters[role])
    bundle = BundleManifest.model_construct(
        roles=list(ROLES), system_prompts={}, prompts={}, redact={},
        settings={"temperature": 0.0, "max_new_tokens": 64, "context": CONTEXT, "threads": threads, "parallel": SLOTS},
    )  # fmt: skip
    settings = EngineSettings(base.path, adapters, CONTEXT, threads, 0.0, SLOTS)
    listener = open_listener("127.0.0.1", 0)
    with running_engine(settings) as engine:
        assert isinstance(engine, LlamaEngine)
        lora = {role: {"lora": settings.lora(role)} for role in ROLES}
        place = {
            "port": f"http://127.0.0.1:{listener.getsockname()[1]}", "engine": engine.address, "lora": lora,
            "headers": dict(engine.headers), "engine_pid": engine._process.pid,
            "identity": engine.engine_identity.line(),
        }  # fmt: skip
        host = Host(bundle, engine, listener, lambda text: print(text, file=sys.stderr), config=ServeConfig(queue=1000))
        listener.listen()
        print(json.dumps(place), flush=True)
        host.run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--requests", type=int, default=8, help="of each client and round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--long", type=int, default=0, help="requests of the long run; 0: compare instead")
    parser.add_argument("--base", default="embedded", help="what base.model may name")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.threads, args.base)
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--serve", folder, "--base", args.base]
        command += ["--threads", str(args.threads)] if args.threads else []
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ})
        assert child.stdout
        try:
            place = json.loads(child.stdout.readline())
            direct = Side(place["engine"], place["headers"], place["lora"])
            port = Side(place["port"], {}, {role: {"model": role} for role in ROLES})
            asyncio.run(load(direct, 2, 3, 8, 0))  # both are warm
            asyncio.run(load(port, 2, 3, 8, 0))
            result: dict[str, Any] = {
                "engine": place["identity"], "processor": os.cpu_count(), "threads": args.threads, "slots": SLOTS,
                "tokens": args.tokens,
            }  # fmt: skip
            if args.long:
                processes = psutil.Process(child.pid), psutil.Process(place["engine_pid"])
                result["long"] = asyncio.run(long_run(port, args.long, 2 * SLOTS, *processes))
            else:
                result["clients"] = {
                    str(count): compare(direct, port, count, args.requests, args.tokens, args.rounds)
                    for count in args.clients
                }
        finally:
            child.terminate()
            child.wait(timeout=30)
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
