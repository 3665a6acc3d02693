"""The whole circle with the embedded model: record, train, shadow, canary, promote, a fault, rollback, train again."""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from faults import wait_until
from journeyman.api.recording import checked, recording
from journeyman.api.serving import Server
from journeyman.artifacts import read_rows
from journeyman.cli.app import app
from journeyman.gateway.ledger import MakerHere
from journeyman.records import Interaction
from journeyman.routing.modes import record_of
from scripted_upstream import Script, Seen, scripted
from two_upstreams import chat

pytestmark = pytest.mark.slow  # it trains twice

CHECK = '''
def label(text, data):
    """The house style: the word urgent or later in brackets."""
    return text.strip() in ("<<urgent>>", "<<later>>")
'''
CONFIG = """
[base]
model = "embedded"
[record]
upstream = "{upstream}"
[data]
sources = ["gathered/"]
[roles.labeler]
checks = ["answered", "label_check.py:label"]
[curate]
val_share = 0.1
test_share = 0.2
[train]
epochs = 1
batch_size = 4
learning_rate = 2e-3
[evaluate]
max_new_tokens = 12
few_shot = 0
regression_suite = false
context = 512
[decide]
min_success = 0.5
stretch_success = 0.6
max_mean_latency_s = 20
max_memory_gb = 4
"""
ROUTE = """
[route]
student = "{student}"
conversation_s = 2
margin = 0.3
alpha = 0.2
least = 8
first_s = 30
"""
THINGS = ["server", "printer", "login", "invoice", "keyboard", "backup", "phone", "screen", "router", "badge"]
PLACES = ["Berlin", "Lyon", "Porto", "Turin", "Ghent", "Malmo", "Cork", "Graz"]


def ticket(number: int) -> str:
    dice = random.Random(number)
    urgent = dice.random() < 0.5
    thing, place = dice.choice(THINGS), dice.choice(PLACES)
    return f"Ticket {number}: the {thing} in {place} fails" + (", help now!" if urgent else ", no hurry.")


def teacher(seen: Seen) -> Script:
    task = json.loads(seen.body)["messages"][-1]["content"]
    return chat("<<urgent>>" if " now" in task else "<<later>>")


def command(*arguments: str, code: int = 0) -> str:
    made = CliRunner().invoke(app, list(arguments))
    assert made.exit_code == code, made.output
    return made.output


@contextmanager
def recorder(folder: Path) -> Iterator[Callable[[int], str]]:
    """The port; a call asks for one ticket, a conversation of its own, and returns who answered."""
    with recording(folder, None, 0, maker=MakerHere) as one:
        thread = threading.Thread(target=one.run)
        thread.start()

        def ask(number: int) -> str:
            parts = urlsplit(one.address)
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
            turns = [{"role": "system", "content": "Label tickets."}, {"role": "user", "content": ticket(number)}]
            body = json.dumps({"model": "labeler", "messages": turns, "max_tokens": 12})
            try:
                connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                answer.read()
                return answer.headers.get("Journeyman-Answered-By", "teacher")
            finally:
                connection.close()

        try:
            yield ask
        finally:
            one.stop()
            thread.join()


def mode(folder: Path) -> str:
    return record_of(folder / "routing").roles["labeler"].mode


def pairs(folder: Path) -> dict[str, int]:
    path = folder / "routing" / "canaries.json"
    found: dict[str, Any] = json.loads(path.read_text())["roles"] if path.exists() else {}
    return dict(found.get("labeler", {}).get("pairs", {}))


def test_the_circle(tmp_path: Path) -> None:
    (tmp_path / "label_check.py").write_text(CHECK)
    config, folder = tmp_path / "journeyman.toml", str(tmp_path)
    with scripted(teacher) as upstream:
        config.write_text(CONFIG.format(upstream=upstream.url))
        with recorder(tmp_path) as ask:
            assert {ask(number) for number in range(50)} == {"teacher"}

        command("run", "--from-recorded", "--dir", folder)
        command("promote", folder, "--releases", str(tmp_path / "releases"))
        student = Server(tmp_path, 0, releases=tmp_path / "releases")
        try:
            config.write_text(config.read_text() + ROUTE.format(student=student.url))
            command("route", "labeler", "shadow", "--dir", folder)
            with recorder(tmp_path) as ask:
                assert {ask(number) for number in range(100, 106)} == {"teacher"}
                wait_until(lambda: pairs(tmp_path).get("both", 0) >= 4)

                command("route", "labeler", "canary", "--share", "0.5", "--dir", folder)
                numbers, answered = count(10_000), set()
                wait_until(lambda: ask(next(numbers)) == "student")  # the recorder has seen the change
                for number in islice(numbers, 200):
                    answered.add(ask(number))
                    if mode(tmp_path) != "canary" and len(answered) == 2:
                        break
                wait_until(lambda: mode(tmp_path) == "fallback")
                assert answered == {"teacher", "student"}

                wait_until(lambda: ask(500) == "student")
                student.close()  # the fault
                for number in range(600, 700):
                    assert ask(number) == "teacher"
                    if mode(tmp_path) == "teacher":
                        break
                wait_until(lambda: mode(tmp_path) == "teacher")
        finally:
            student.close()
        events = record_of(tmp_path / "routing").events
        assert [one.action for one in events] == ["command", "command", "promote", "roll_back"]
        assert all(one.why for one in events[2:])
        assert checked(tmp_path).difference == 0

        command("run", "--from-recorded", "--redo", "--until", "curate", "--dir", folder)
    rows = list(read_rows(tmp_path / "01-interactions" / "interactions.jsonl.zst", Interaction))
    marked = [one for one in rows if "fallback" in str(one.extra.get("student"))]
    assert len(rows) > 60 and len(marked) >= 10
    assert all(str(one.output).startswith("<<") for one in rows)
