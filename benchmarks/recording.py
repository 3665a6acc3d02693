"""What `journeyman record` adds to the time to the first byte, and whether its memory grows.

python benchmarks/recording.py [--requests 300] [--soak 20000] [--litellm BIN/litellm] [--out results/recording.json]

A stand-in upstream, in a process of its own, answers each request with a stream of events after a pause. Clients ask it
directly and through the recorder, in turns. "added" is the difference of the same quantile of both. With --litellm, its
proxy (one process, no database, no callbacks) is a third way, in the same turns; it records nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

_KEY = "sk-benchmark-7c1f93e0a4d25b8896e3"
PAUSE_S, EVENTS, GAP_S = 0.02, 10, 0.005
_EVENT = b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word %d "}}]}\n\n'
_LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class _Upstream(asyncio.Protocol):
    def __init__(self, pause_s: float) -> None:
        self._pause_s, self._held = pause_s, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, found, body = self._held.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
        if found and len(body) >= length:
            self._held = b""
            self._loop.call_later(self._pause_s, self._event, 0)

    def _event(self, place: int) -> None:
        if self._transport.is_closing():
            return
        if place == EVENTS:
            self._transport.write(_chunk(_LAST) + b"0\r\n\r\n")
            return
        self._transport.write((_HEAD if place == 0 else b"") + _chunk(_EVENT % place))
        gap = GAP_S if self._pause_s else 0.0
        self._loop.call_later(gap, self._event, place + 1)


async def _serve(port: int, pause_s: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Upstream(pause_s), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> float:
    """Seconds to the first byte of the body."""
    begun = time.perf_counter()
    writer.write(request)
    data = b""
    while b"data: " not in data:
        data += await reader.read(1 << 16)
    first = time.perf_counter() - begun
    while not data.endswith(b"0\r\n\r\n"):
        piece = await reader.read(1 << 16)
        assert piece, "cut"
        data += piece
    return first


def _request(size: int) -> bytes:
    turns = [{"role": "system", "content": "You are a planner. " + "Plan well. " * (size // 11)},
             {"role": "user", "content": "Where is K-17?"}]  # fmt: skip
    body = json.dumps({"model": "m", "stream": True, "messages": turns}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    return (
        head.encode() + b"Content-Type: application/json\r\nAuthorization: Bearer " + _KEY.encode() + b"\r\n\r\n" + body
    )


async def _clients(port: int, number: int, requests: int, request: bytes) -> list[float]:
    async def one(count: int) -> list[float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        found = [await _ask(reader, writer, request) for _ in range(count)]
        writer.close()
        return found

    found = await asyncio.gather(*(one(max(1, requests // number)) for _ in range(number)))
    return [value for values in found for value in values]


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1000


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait(port: int) -> None:
    for _ in range(1200):
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing listens on {port}")


def _latency(ports: dict[str, int], clients: int, requests: int, request: bytes) -> dict[str, Any]:
    """Quantiles of the time to the first byte by way; `direct` is one of them."""
    times: dict[str, list[float]] = {way: [] for way in ports}
    for turn in range(6):  # the first of each warms up
        for way, port in ports.items():
            found = asyncio.run(_clients(port, clients, max(clients, requests // 5), request))
            times[way] += found if turn else []
    made: dict[str, Any] = {"requests": len(times["direct"])}
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        direct = _quantile(times["direct"], share)
        made[f"direct_{name}_ms"] = round(direct, 3)
        for way in ports.keys() - {"direct"}:
            found_ms = _quantile(times[way], share)
            made |= {f"{way}_{name}_ms": round(found_ms, 3), f"{way}_added_{name}_ms": round(found_ms - direct, 3)}
    return made


def _litellm(program: str, port: int, upstream: int, folder: str) -> subprocess.Popen[bytes]:
    config = Path(folder) / "litellm.yaml"
    config.write_text(
        "model_list:\n- model_name: m\n  litellm_params:\n    model: openai/m\n"
        f"    api_base: http://127.0.0.1:{upstream}/v1\n    api_key: sk-benchmark\n"
        f"general_settings:\n  master_key: {_KEY}\nlitellm_settings:\n  telemetry: false\n"
    )
    return subprocess.Popen(
        [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "LITELLM_LOG": "ERROR"},
    )  # fmt: skip


def _memory(process: psutil.Process) -> float:
    """Resident MiB."""
    return process.memory_info().rss / 2**20


def _processor_s(process: psutil.Process) -> dict[str, float]:
    """Seconds of processor time of the port, and of the process that makes rows."""
    rows = process.children(recursive=True)
    return {"port": sum(process.cpu_times()[:2]), "rows": sum(sum(one.cpu_times()[:2]) for one in rows)}


def _written(port: int) -> int:
    """Waits until every exchange is a row; returns how many were not at first."""
    behind = 0
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/journeyman/health", timeout=30) as answer:
            waiting = json.load(answer)["waiting"]
        behind = max(behind, waiting)
        if not waiting:
            return behind
        time.sleep(0.05)


def _soak(port: int, process: psutil.Process, requests: int, request: bytes) -> dict[str, Any]:
    steps, behind, spent = 10, 0, _processor_s(process)
    processes = {"port": process, "rows": max(process.children(recursive=True), key=_memory)}
    marks = {name: [_memory(one)] for name, one in processes.items()}
    begun, done = time.perf_counter(), 0
    for _ in range(steps):
        done += len(asyncio.run(_clients(port, 16, requests // steps, request)))
        behind = max(behind, _written(port))
        for name, one in processes.items():
            marks[name].append(round(_memory(one), 1))
    return {
        "requests": done, "requests_per_s": round(done / (time.perf_counter() - begun), 1),
        "processor_ms_per_request": {
            name: round((now - spent[name]) * 1000 / done, 3) for name, now in _processor_s(process).items()
        },
        "most_rows_behind": behind,
        "rss_mib": marks,
        "growth_after_first_tenth_mib": {name: round(one[-1] - one[1], 2) for name, one in marks.items()},
    }  # fmt: skip


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--requests", type=int, default=300)
    asked.add_argument("--clients", type=int, nargs="*", default=[1, 16, 64])
    asked.add_argument("--soak", type=int, default=0)
    asked.add_argument("--body", type=int, default=8_000, help="characters of the system prompt")
    asked.add_argument("--litellm", metavar="PROGRAM", help="also measure this LiteLLM proxy")
    asked.add_argument("--out", type=Path)
    asked.add_argument("--upstream", type=int, nargs=2, metavar=("PORT", "PAUSE_MS"), help=argparse.SUPPRESS)
    given = asked.parse_args()
    if given.upstream:
        asyncio.run(_serve(given.upstream[0], given.upstream[1] / 1000))
        return
    request = _request(given.body)
    result: dict[str, Any] = {
        "cores": os.cpu_count(), "load_before": os.getloadavg(), "pause_ms": PAUSE_S * 1000, "events": EVENTS,
        "body_bytes": len(request), "clients": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for pause_ms in (int(PAUSE_S * 1000), 0):
            if not pause_ms and not given.soak:
                continue
            direct, recorded = _free_port(), _free_port()
            upstream = subprocess.Popen([sys.executable, __file__, "--upstream", str(direct), str(pause_ms)])
            recorder = subprocess.Popen(
                [sys.executable, "-m", "journeyman", "record", "--upstream", f"http://127.0.0.1:{direct}",
                 "--port", str(recorded), "--dir", folder], stderr=subprocess.DEVNULL,
            )  # fmt: skip
            ways, peer = {"direct": direct, "recorded": recorded}, None
            if pause_ms and given.litellm:
                ways["litellm"] = _free_port()
                peer = _litellm(given.litellm, ways["litellm"], direct, folder)
            try:
                for port in ways.values():
                    _wait(port)
                for port in ways.values():
                    asyncio.run(_clients(port, 4, 40, request))
                asyncio.run(_clients(recorded, 4, 40, request))
                time.sleep(4)  # the process that makes rows has started
                if pause_ms:
                    for clients in given.clients:
                        result["clients"][clients] = _latency(ways, clients, given.requests, request)
                else:
                    result["soak"] = _soak(recorded, psutil.Process(recorder.pid), given.soak, request)
            finally:
                if peer is not None:
                    peer.terminate()
                    peer.wait(60)
                recorder.terminate()
                recorder.wait(60)
                upstream.terminate()
                upstream.wait()
        check = [sys.executable, "-m", "journeyman", "record", "--check", "--json", "--dir", folder]
        result["check"] = json.loads(subprocess.run(check, capture_output=True, text=True).stdout)
    result["load_after"] = os.getloadavg()
    text = json.dumps(result, indent=2)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
