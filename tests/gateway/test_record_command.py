"""The command from start to finish: record, check, learn, ingest."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from pathlib import Path

import pytest

from dialects import ALL, CHAT
from faults import command, journeyman, start
from journeyman.artifacts import read_rows
from journeyman.records import Interaction
from scripted_upstream import Seen, chunks, scripted, sse

TOML = """
[base]
model = "embedded"
[data]
sources = ["recorded/"]
[[record.roles]]
role = "planner"
system = "^You are a planner"
"""


@pytest.mark.slow
def test_recorded_then_checked_then_ingested(tmp_path: Path) -> None:
    (tmp_path / "journeyman.toml").write_text(TOML)

    def answer(seen: Seen) -> list[bytes]:
        asked = json.loads(seen.body)
        dialect = next(one for one in ALL.values() if one.path == seen.path)
        return chunks(*sse(*CHAT.events[:3])) if asked.get("n") else dialect.script(stream=asked["stream"])

    with scripted(answer) as upstream:
        recorder = start(command("record", "--upstream", upstream.url, "--port", 0, "--dir", tmp_path))
        assert recorder.stdout is not None
        said = recorder.stdout.readline()
        address = re.search(r"http://\S+(?=/v1)", said)
        assert address, said
        for dialect in ALL.values():
            for stream in (False, True):
                _ask(address[0] + dialect.path, {**dialect.request, "stream": stream})
        _ask(address[0] + CHAT.path, {**CHAT.request, "n": 1, "stream": True})
        recorder.send_signal(signal.SIGTERM)
        rest = recorder.communicate(timeout=60)[0]
        assert (recorder.returncode, rest) == (0, "")
    checked = journeyman("record", "--check", "--json", "--dir", tmp_path)
    assert checked.returncode == 0
    found = json.loads(checked.stdout)
    assert (found["requests"], found["rows"], found["answers"], found["difference"]) == (7, 7, 7, 0)
    assert found["outcomes"] == {"complete": 6, "cut": 1}
    learned = journeyman("record", "--learn", "--dir", tmp_path)
    assert 'role = "planner"' in learned.stdout
    ingested = journeyman("ingest", "--dir", tmp_path)
    assert ingested.returncode == 0, ingested.stderr
    rows = list(read_rows(tmp_path / "01-interactions" / "interactions.jsonl.zst", Interaction))
    assert [row.role for row in rows] == ["planner"] * 7
    assert sorted(str(row.succeeded) for row in rows) == ["False"] + ["True"] * 6
    assert len({row.session for row in rows}) == 1, "the same beginning in every dialect"
    (path,) = (tmp_path / "recorded").glob("rows-*")
    assert path.name.endswith(".jsonl.zst")


def _ask(url: str, body: object) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        answer.read()


def test_a_folder_without_records_is_an_error(tmp_path: Path) -> None:
    from journeyman.api.recording import checked
    from journeyman.errors import UsageError

    with pytest.raises(UsageError, match="nothing was recorded"):
        checked(tmp_path)
