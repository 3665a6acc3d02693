"""Shared by tests/gateway/test_kills.py and tools/record_kills.py: a recorder that is killed while clients read."""

from __future__ import annotations

import http.client
import json
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import ENV
from journeyman.api.recording import checked
from journeyman.gateway.row_files import lines_of, row_files
from scripted_upstream import ABORT, Script, Seen, chunks, scripted, sse
from scripted_upstream import http as answer_of

_CHILD = Path(__file__).with_name("recorder_child.py")
_PIECE = re.compile(r'"content": "([^"]*)"')


def _answer(seen: Seen) -> Script:
    """Words with the request's number, with pauses; some answers are large."""
    number = json.loads(seen.body)["messages"][0]["content"]
    dice = random.Random(number)
    words = [f"{number}.{place} " for place in range(dice.randint(1, 30))]
    if dice.random() < 0.1:
        words = [word * 2_000 for word in words]
    events = [
        {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": word}}]} for word in words
    ]
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    for piece in chunks(*sse(*events, last, "[DONE]")):
        yield piece
        if dice.random() < 0.5:
            yield dice.random() * 0.01


@dataclass
class Client:
    """What a client got: number of the request → text, and whether it was the whole answer."""

    got: dict[str, tuple[str, bool]] = field(default_factory=dict)

    def ask(self, port: int, number: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        data, whole = b"", False
        with suppress(OSError, http.client.HTTPException):
            body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": number}]})
            connection.request("POST", "/v1/chat/completions", body)
            answer = connection.getresponse()
            while piece := answer.read1(1 << 16):
                data += piece
            whole = answer.isclosed() and data.endswith(b"[DONE]\n\n")
        connection.close()
        if data:
            self.got[number] = ("".join(_PIECE.findall(data.decode())), whole)


def _student(seen: Seen) -> Script:
    """Answers as the teacher does, refuses every third request, and breaks off every seventh answer."""
    if seen.path == "/ready":
        return [answer_of(b'{"status": "ok", "bundle": "one"}')]
    dice = random.Random(json.loads(seen.body)["messages"][0]["content"])
    if dice.random() < 1 / 3:
        return [answer_of(b'{"error": {"message": "full"}}', status="503 Service Unavailable")]
    script = list(_answer(seen))
    return [*script[: len(script) // 2], ABORT] if dice.random() < 1 / 7 else script


def killed(
    folder: Path, kills: int, *, clients: int = 4, maker: str = "here", seed: int = 0, student: bool = False
) -> dict[str, Any]:
    """Kills a recorder at random moments, starts it again each time, and compares what clients got with the rows.

    Args:
        student: one answers beside the teacher, which answers where it fails.
    """
    dice, asking, up = random.Random(seed), Client(), threading.Event()
    stop = threading.Event()
    (folder / "journeyman.toml").write_text("[record]\nrows_mib = 1\nshutdown_s = 5.0\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def client(name: int) -> None:
        place = 0
        while not stop.is_set():
            if up.wait(0.1):
                place += 1
                asking.ask(port, f"c{name}n{place}")

    with scripted(_answer) as upstream, scripted(_student) as beside:
        if student:
            route = f'[route]\nstudent = "{beside.url}"\n[route.roles.m]\nmode = "fallback"\n'
            with (folder / "journeyman.toml").open("a") as config:
                config.write(route)
        child = subprocess.Popen(
            [sys.executable, str(_CHILD), str(folder), upstream.url, str(port), maker],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENV,
        )  # fmt: skip
        threads = [threading.Thread(target=client, args=(name,)) for name in range(clients)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(kills):
                _tell(child, "start")
                _reachable(port)
                up.set()
                time.sleep(dice.random() * 0.3)
                up.clear()
                _tell(child, "kill")
            _tell(child, "start")
            _reachable(port)
            up.set()
            time.sleep(0.3)
            stop.set()
            for thread in threads:
                thread.join()
            _tell(child, "stop")
        finally:
            stop.set()
            up.set()
            assert child.stdin is not None
            child.stdin.close()
            child.wait(20)
    return compared(folder, asking.got)


def _tell(child: subprocess.Popen[str], word: str) -> None:
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(word + "\n")
    child.stdin.flush()
    assert child.stdout.readline().strip() in ("started", "ended")


def _reachable(port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.005)
    raise AssertionError("the recorder did not start")


def compared(folder: Path, got: dict[str, tuple[str, bool]]) -> dict[str, Any]:
    """What the ledger counts, and every answer of which a client got more than a row has."""
    count = checked(folder)
    rows: dict[str, list[tuple[str, str]]] = {}
    for path in row_files(folder / "recorded"):
        for line in lines_of(path):
            row = json.loads(line)
            if "request" in row:
                rows.setdefault(row["request"]["messages"][0]["content"], []).append((row["outcome"], _said(row)))
    short = [
        number
        for number, (text, _) in got.items()
        if not any(said.startswith(text) for _, said in rows.get(number, ()))
    ]
    whole = [number for number, (_, all_) in got.items() if all_]
    unlike = [number for number in whole if not any(said == got[number][0] for _, said in rows.get(number, ()))]
    return {
        **count.as_json(),
        "answers_received": len(got),
        "whole_answers_received": len(whole),
        "whole_answers_by_outcome": dict(Counter(rows[number][0][0] for number in whole if number in rows)),
        "received_but_not_in_a_row": [*short, *unlike],
    }


def _said(row: dict[str, Any]) -> str:
    choices: Sequence[Any] = row.get("response", {}).get("choices", ())
    return "".join(choice.get("message", {}).get("content") or "" for choice in choices) + _rest(row)


def _rest(row: dict[str, Any]) -> str:
    return "".join(_PIECE.findall(row.get("rest", "")))
