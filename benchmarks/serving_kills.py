"""What do clients get when the engine is killed under load, and when does the port answer again?

    python benchmarks/serving_kills.py [--kills 100] [--clients 8] [--base tiny]

Clients ask without a pause, in all four APIs, streamed and whole. Again and again, the engine gets SIGKILL while it is
answering. Every client has to get a complete answer or one clear error: a status with an error object, or an error
event in a stream. Anything else is unclear: a connection that ends, a stream that just stops, no answer within a
minute. The time is that from the signal to the first answer to a request that was sent after it. An engine that has run
for half a second counts as steady here; in service, engines that end again and again are restarted after growing waits.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import statistics
import time
from collections import Counter
from typing import Any

import aiohttp
from serving_port import ROLES, Port, report, running_port

LATE_S, STEADY_S = 60.0, 0.5
ENDS = {
    "chat/completions": ("[DONE]",), "completions": ("[DONE]",), "messages": ("message_stop",),
    "responses": ("response.completed", "response.incomplete"),
}  # fmt: skip
QUESTION = [{"role": "user", "content": "Tell me a story."}]


def asked(path: str, role: str, stream: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"prompt": "x"} if path == "completions" else {"messages": QUESTION}
    if path == "responses":
        said = {"input": QUESTION}
    most = "max_output_tokens" if path == "responses" else "max_tokens"
    return {"model": role, "stream": stream, most: 200, "temperature": 1, **said}


def outcome(path: str, status: int, stream: bool, text: str) -> str:
    """What a client got: `answer`, an error with its status, `error event`, or `unclear` with what it was."""
    if status != 200 or not stream:
        answer = json.loads(text)
        return "answer" if status == 200 else f"error {status}" if answer["error"]["message"] else "unclear: no message"
    data = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    events = [json.loads(one) for one in data if one != "[DONE]"]
    errors = [event.get("error") or (event.get("response") or {}).get("error") for event in events]
    ended = any(end in data[-1] for end in ENDS[path])
    failed = any(error and error["message"] for error in errors)
    if ended and failed:
        return "unclear: an error, then the end of a complete answer"
    return "answer" if ended else "error event" if failed else "unclear: the stream just stops"


class Clients:
    """Clients that ask without a pause until `stop`."""

    def __init__(self, http: aiohttp.ClientSession, port: Port) -> None:
        self._http, self._port, self._over = http, port, False
        self._numbers = itertools.count()
        self.outcomes: Counter[str] = Counter()
        self.killed = 0.0
        self.again: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def client(self) -> None:
        paths = list(ENDS)
        while not self._over:
            number = next(self._numbers)
            path, stream = paths[number % len(paths)], number // len(paths) % 2 == 0
            begun = time.perf_counter()
            got = await self.ask(path, ROLES[number % len(ROLES)], stream)
            self.outcomes[got] += 1
            if got == "answer" and begun > self.killed and not self.again.done():
                self.again.set_result(time.perf_counter() - self.killed)

    async def ask(self, path: str, role: str, stream: bool) -> str:
        try:
            async with self._http.post(f"{self._port.url}/v1/{path}", json=asked(path, role, stream)) as answer:
                return outcome(path, answer.status, stream, await answer.text())
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, IndexError) as error:
            return f"unclear: {type(error).__name__}: {error}"

    def stop(self) -> None:
        self._over = True


async def run(port: Port, kills: int, clients: int) -> dict[str, Any]:
    chance, seconds = random.Random(0), []
    timeout = aiohttp.ClientTimeout(total=LATE_S)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as http:
        asking = Clients(http, port)
        tasks = [asyncio.create_task(asking.client()) for _ in range(clients)]
        for _ in range(kills):
            await asyncio.sleep(STEADY_S + 0.3 + chance.random())
            engine = port.engine()
            assert engine is not None, "no engine runs"
            asking.again = asyncio.get_running_loop().create_future()
            asking.killed = time.perf_counter()
            engine.kill()
            async with asyncio.timeout(LATE_S):
                seconds.append(await asking.again)
        asking.stop()
        await asyncio.gather(*tasks)
        page = await (await http.get(f"{port.url}/metrics")).text()
    left = [line for line in page.splitlines() if line.startswith(("journeyman_requests_w", "journeyman_requests_a"))]
    return {
        "kills": kills, "clients": clients, "outcomes": dict(asking.outcomes.most_common()),
        "unclear": sum(count for name, count in asking.outcomes.items() if name.startswith("unclear")),
        "again_p50_s": round(statistics.median(seconds), 3), "again_max_s": round(max(seconds), 3),
        "left_at_the_end": left,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--base", default="tiny", help="tiny, or what base.model may name")
    args = parser.parse_args()
    with running_port(args.base, args.threads, spread=0.5 if args.base == "tiny" else 0.02, steady_s=STEADY_S) as port:
        found = asyncio.run(run(port, args.kills, args.clients))
        result = {"engine": port.place["identity"], "processor": os.cpu_count(), "base": args.base, **found}
    report("serving_kills", result)


if __name__ == "__main__":
    main()
