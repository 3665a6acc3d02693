"""The recorder's port: what passes through it is unchanged, and every request becomes a row that says how it ended."""

from __future__ import annotations

import gzip
import http.client
import json
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dialects import ALL, ARGUMENTS, CHAT, MESSAGES, QUESTION, SYSTEM, TEXT
from faults import wait_until
from journeyman.api.recording import Recording, checked, recording
from journeyman.config import DataConfig
from journeyman.errors import UsageError
from journeyman.gateway.journal import ExchangeJournal
from journeyman.gateway.ledger import MakerHere
from journeyman.records import Interaction
from journeyman.sources.files import parse_line
from journeyman.sources.reader import Reader
from scripted_upstream import ABORT, Seen, chunks, recorded, rows_in, scripted, sse
from scripted_upstream import http as answer_of

KEY = "sk-proj-Zx81kQwe72LmPq09TyUiBn34VcRf56Gh"
HOP = {"connection", "transfer-encoding", "keep-alive", "date"}


def ask(url: str, path: str, body: Any = None, headers: dict[str, str] | None = None, method: str = "POST") -> Any:
    """Status, headers and body of an answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request(method, path, data, headers or {})
    answer = connection.getresponse()
    try:
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def base(recorder: Recording) -> str:
    return recorder.address.removesuffix("/v1")


def interactions(folder: Path) -> list[Interaction]:
    found = [Reader(DataConfig()).records(parse_line(json.dumps(row).encode(), 1), "r") for row in rows_in(folder)]
    return [one for records in found for one in records if isinstance(one, Interaction)]


def one_row(folder: Path) -> dict[str, Any]:
    (row,) = rows_in(folder)
    assert checked(folder).difference == 0
    return row


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_an_exchange_passes_unchanged_and_becomes_an_interaction(tmp_path: Path, name: str, stream: bool) -> None:
    dialect = ALL[name]
    request = {**dialect.request, **({"stream": True} if stream else {})}
    sent = {
        "Authorization": f"Bearer {KEY}",
        "Content-Type": "application/json",
        "X-Own": "é".encode().decode("latin-1"),
    }
    with scripted(lambda seen: dialect.script(stream=stream)) as upstream:
        direct = ask(upstream.url, dialect.path, request, sent)
        with recorded(tmp_path, upstream.url) as recorder:
            passed = ask(base(recorder), f"{dialect.path}?beta=true&x=%2F", request, sent)
        first, second = upstream.seen
    assert passed[0] == direct[0] == 200
    assert passed[2] == direct[2]
    assert {k: v for k, v in passed[1].items() if k.lower() not in HOP} == {
        k: v for k, v in direct[1].items() if k.lower() not in HOP
    }
    assert second.body == first.body
    assert second.path == f"{dialect.path}?beta=true&x=%2F"
    assert {k: v for k, v in second.headers.items() if k != "Host"} == {
        k: v for k, v in first.headers.items() if k != "Host"
    }
    row = one_row(tmp_path)
    assert row["outcome"] == "complete"
    assert row["tokens"] == {"prompt": 11, "answer": 7}
    assert row["tool_calls"] == 1
    assert row["first_ms"] <= row["duration_ms"]
    (made,) = interactions(tmp_path)
    assert [(turn.role, turn.content) for turn in made.messages] == [("system", SYSTEM), ("user", QUESTION)]
    assert made.output == TEXT
    assert [(call.name, call.arguments) for call in made.output_calls] == [("find", ARGUMENTS)]
    assert made.finish_reason == "tool_calls"
    assert made.succeeded is True
    assert made.role == made.model == dialect.request["model"]
    assert made.session == row["conversation"]


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "429 Too Many", "500 Oops", "529 Overloaded"])
def test_errors_pass_unchanged_and_teach_nothing(tmp_path: Path, status: str) -> None:
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"later"}}'
    answer = answer_of(body, "application/json", status, "retry-after: 7", "request-id: r1")
    with scripted(lambda seen: [answer]) as upstream, recorded(tmp_path, upstream.url) as recorder:
        got = ask(base(recorder), "/v1/messages", MESSAGES.request)
    assert (got[0], got[2]) == (int(status[:3]), body)
    assert got[1]["retry-after"] == "7"
    assert len(upstream.seen) == 1, "no retry"
    row = one_row(tmp_path)
    assert (row["outcome"], row["status"]) == ("complete", int(status[:3]))
    (made,) = interactions(tmp_path)
    assert made.succeeded is False
    assert made.output is None
    assert "later" in str(made.errors)


def test_redirects_and_other_paths_are_passed_on(tmp_path: Path) -> None:
    def answer(seen: Seen) -> list[bytes]:
        if seen.path == "/v1/models":
            return [answer_of(b'{"data": []}')]
        return [b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"]

    with scripted(answer) as upstream, recorded(tmp_path, upstream.url + "/v1") as recorder:
        assert ask(base(recorder), "/v1/models", method="GET")[2] == b'{"data": []}'
        status, headers, _ = ask(base(recorder), "/v1/files", b"x")
    assert (status, headers["Location"]) == (307, "/elsewhere")
    assert "Content-Type" not in headers
    assert "Server" not in headers
    assert [row["path"] for row in rows_in(tmp_path)] == ["/v1/models", "/v1/files"]
    assert interactions(tmp_path) == []


CUTS = {
    "connection": [*chunks(*sse(*CHAT.events[:3]), end=False), ABORT],
    "no last event": chunks(*sse(*CHAT.events[:3])),
    "error event": chunks(*sse(*CHAT.events[:3], {"error": {"message": "overloaded"}})),
    "length": [answer_of(json.dumps(CHAT.answer).encode())[:-40], ABORT],
    "messages": chunks(*sse(*MESSAGES.events[:5])),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_cut_answer_is_cut_for_the_client_too_and_teaches_nothing(tmp_path: Path, name: str) -> None:
    dialect = MESSAGES if name == "messages" else CHAT
    broken = ABORT in CUTS[name]
    with scripted(lambda seen: CUTS[name]) as upstream, recorded(tmp_path, upstream.url) as recorder:
        if broken:
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                ask(base(recorder), dialect.path, {**dialect.request, "stream": True})
        else:
            assert ask(base(recorder), dialect.path, {**dialect.request, "stream": True})[0] == 200
    row = one_row(tmp_path)
    assert row["outcome"] == "cut"
    assert row["why"] == ("upstream_closed" if broken else "stream_unfinished")
    assert "I look" in json.dumps(row["response"])
    (made,) = interactions(tmp_path)
    assert made.succeeded is False
    assert made.output is None
    if name != "length":
        assert "I look" in made.extra["partial"]["output"]


def test_what_is_no_json_passes(tmp_path: Path) -> None:
    with (
        scripted(lambda seen: [answer_of(b"<html>\xc3\xa4 no")]) as upstream,
        recorded(tmp_path, upstream.url) as recorder,
    ):
        assert ask(base(recorder), "/v1/chat/completions", b'{"model": ')[2] == b"<html>\xc3\xa4 no"
        assert ask(base(recorder), "/v1/audio", b"\xff\x00\xfe")[0] == 200
    first, second = rows_in(tmp_path)
    assert (first["request"], first["response"]) == ('{"model": ', "<html>ä no")
    assert second["unread"] == {"request": "3 bytes, not text"}
    assert second["bytes"]["request"] == 3


def test_compressed_bodies_pass_unchanged_and_are_read(tmp_path: Path) -> None:
    packed = gzip.compress(json.dumps(CHAT.answer).encode())
    answer = answer_of(packed, "application/json", "200 OK", "Content-Encoding: gzip")
    asked = gzip.compress(json.dumps(CHAT.request).encode())
    sent = {"Content-Encoding": "gzip", "Accept-Encoding": "gzip, br, zstd;q=0.5"}
    with scripted(lambda seen: [answer]) as upstream, recorded(tmp_path, upstream.url) as recorder:
        got = ask(base(recorder), CHAT.path, asked, sent)
    assert (got[1]["Content-Encoding"], got[2]) == ("gzip", packed)
    assert upstream.seen[0].body == asked
    assert upstream.seen[0].headers["Accept-Encoding"] == "gzip, zstd;q=0.5", "a row could not be read from br"
    assert interactions(tmp_path)[0].output == TEXT


def test_an_upstream_that_is_down_gets_502_and_a_row(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with recorded(tmp_path, url) as recorder:
        status, headers, body = ask(base(recorder), MESSAGES.path, MESSAGES.request)
    assert status == 502
    assert headers["Journeyman-Error"] == "recorder"
    assert json.loads(body)["type"] == "error"
    assert "cannot be reached" in json.loads(body)["error"]["message"]
    row = one_row(tmp_path)
    assert (row["outcome"], row["why"]) == ("failed", "upstream_unreachable")
    (made,) = interactions(tmp_path)
    assert (made.succeeded, made.output) == (False, None)


def test_an_upstream_that_sends_nothing_fails(tmp_path: Path) -> None:
    with scripted(lambda seen: [5.0]) as upstream, recorded(tmp_path, upstream.url, "silent_s = 0.2") as recorder:
        assert ask(base(recorder), CHAT.path, CHAT.request)[0] == 504
    assert one_row(tmp_path)["why"] == "upstream_silent"


@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_leaves_cancels_the_upstream(tmp_path: Path, begun: bool) -> None:
    script = [*chunks(*sse(*CHAT.events[:3]), end=False), 30.0] if begun else [30.0]
    with scripted(lambda seen: script) as upstream, recorded(tmp_path, upstream.url) as recorder:
        parts = urlsplit(recorder.address)
        with socket.create_connection((parts.hostname, parts.port)) as client:
            body = json.dumps(CHAT.request).encode()
            client.sendall(
                b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
                % (CHAT.path.encode(), len(body), body)
            )
            if begun:
                got = b""
                while b"it up." not in got:
                    got += client.recv(4096)
            else:
                wait_until(lambda: upstream.seen)
        wait_until(lambda: upstream.left == 1, timeout_s=10)
    row = one_row(tmp_path)
    assert (row["outcome"], row["why"]) == ("cancelled", "client_left")
    (made,) = interactions(tmp_path)
    assert (made.succeeded, made.output) == (False, None)


@pytest.mark.parametrize("name", [*ALL, "chat without the last event", "error status"])
def test_a_client_that_leaves_after_the_last_event_has_the_whole_answer(tmp_path: Path, name: str) -> None:
    """Clients close at it, before the connection's own end; usage may be missing."""
    dialect = ALL.get(name, CHAT)
    events = dialect.events[:-1] if name == "chat without the last event" else dialect.events
    script = [*chunks(*sse(*events, named=dialect.named), end=False), 30.0]
    if name == "error status":
        script[0] = script[0].replace(b" 200 OK", b" 500 Oops")
    with scripted(lambda seen: script) as upstream, recorded(tmp_path, upstream.url) as recorder:
        parts = urlsplit(recorder.address)
        with socket.create_connection((parts.hostname, parts.port)) as client:
            body = json.dumps({**dialect.request, "stream": True}).encode()
            client.sendall(
                b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
                % (dialect.path.encode(), len(body), body)
            )
            last, got = sse(events[-1], named=dialect.named)[0], b""
            while last not in got:
                got += client.recv(4096)
        wait_until(lambda: upstream.left == 1, timeout_s=10)
    row = one_row(tmp_path)
    (made,) = interactions(tmp_path)
    if name in ALL:
        assert (row["outcome"], row.get("why"), row.get("errors")) == ("complete", None, None)
        assert (made.succeeded, made.output) == (True, TEXT)
    else:
        assert (row["outcome"], row["why"]) == ("cancelled", "client_left")
        assert (made.succeeded, made.output) == (False, None)


def test_giant_bodies(tmp_path: Path) -> None:
    """Both ways, in many pieces; one above the limit is refused before the upstream hears of it."""
    request = {**CHAT.request, "padding": "x" * (3 << 20)}
    big = json.dumps({**CHAT.answer, "padding": "y" * (5 << 20)}).encode()
    with scripted(lambda seen: [answer_of(big)]) as upstream:
        with recorded(tmp_path, upstream.url, "max_body_mib = 4") as recorder:
            assert ask(base(recorder), CHAT.path, request)[2] == big
            sent = b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n"
            parts = urlsplit(recorder.address)
            with socket.create_connection((parts.hostname, parts.port)) as client:
                client.sendall(sent)
                assert b" 413 " in client.recv(4096)
        assert json.loads(upstream.seen[0].body) == request
        assert len(upstream.seen) == 1
    whole, refused = rows_in(tmp_path)
    assert whole["response"]["padding"] == "y" * (5 << 20)
    assert (refused["outcome"], refused["why"]) == ("refused", "size")


def test_other_hosts_and_pages_are_refused(tmp_path: Path) -> None:
    with scripted(lambda seen: CHAT.script(stream=False)) as upstream, recorded(tmp_path, upstream.url) as recorder:
        assert ask(base(recorder), CHAT.path, CHAT.request, {"Host": "evil.example"})[0] == 403
        assert ask(base(recorder), CHAT.path, CHAT.request, {"Origin": "https://evil.example"})[0] == 403
        assert ask(base(recorder), "/journeyman/health", None, {"Host": "evil.example"}, "GET")[0] == 403
    assert upstream.seen == []
    assert [(row["outcome"], row["why"]) for row in rows_in(tmp_path)] == [("refused", "host"), ("refused", "origin")]


def test_the_ports_own_key_is_needed_once_there_is_one_and_is_not_passed_on(tmp_path: Path) -> None:
    from journeyman.serving.keyring import FILE, KeyFile

    secret = KeyFile(tmp_path / FILE).add("team")
    with scripted(lambda seen: CHAT.script(stream=False)) as upstream, recorded(tmp_path, upstream.url) as recorder:
        assert ask(base(recorder), CHAT.path, CHAT.request)[0] == 401
        assert ask(base(recorder), CHAT.path, CHAT.request, {"Journeyman-Key": secret})[0] == 200
    assert "Journeyman-Key" not in upstream.seen[0].headers
    assert [row.get("key") for row in rows_in(tmp_path)] == [None, "team"]


def test_keys_are_never_written_and_secrets_only_in_memory(tmp_path: Path) -> None:
    """Not even if the upstream repeats the key, or streams a secret in pieces."""
    secret = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
    events = [
        {**CHAT.events[1], "choices": [{"index": 0, "delta": {"content": part}}]} for part in (secret[:9], secret[9:])
    ]
    said = [*events, {**CHAT.events[1], "choices": [{"index": 0, "delta": {"content": f" wrong key {KEY}"}}]}]
    script = chunks(*sse(*said, CHAT.events[6], "[DONE]"))
    request = {**CHAT.request, "messages": [{"role": "user", "content": f"token {secret}, mail a@corp.io"}]}
    headers = {"Authorization": f"Bearer {KEY}", "X-Api-Key": "plain-old-key-77", "Cookie": "session=c00kie-value"}
    with scripted(lambda seen: script) as upstream:
        with recorded(tmp_path, upstream.url) as recorder:
            got = ask(base(recorder), f"{CHAT.path}?key=query-key-4711", request, headers)
            journal = recorder.ledger.journal
            assert journal.stat().st_mode & 0o777 == 0o700
        assert secret.encode() in got[2].replace(b'"}}]}\n\n', b"") or secret[:9].encode() in got[2]
        assert upstream.seen[0].headers["Authorization"] == f"Bearer {KEY}"
    kept = b"".join(path.read_bytes() for folder in (tmp_path, journal) for path in folder.rglob("*") if path.is_file())
    for value in (secret, KEY, "plain-old-key-77", "c00kie-value", "query-key-4711", "a@corp.io", secret[9:]):
        assert value.encode() not in kept
    row = one_row(tmp_path)
    assert row["response"]["choices"][0]["message"]["content"].endswith(" wrong key <KEY>")
    assert row["key_hash"]


@pytest.mark.parametrize("killed", [False, True])
def test_no_key_is_written_wherever_the_upstream_repeats_it(tmp_path: Path, killed: bool) -> None:
    """Keys without the form of one: in errors of a stream, as a finish reason, model or id, in what is not JSON."""
    keys = ["plain-old-key-77", "first-cookie", "second-cookie", "key in words", "query/key-4711", "basic-key-88"]
    said = " ".join(keys)
    ended = {"index": 0, "delta": {"role": said, "tool_calls": [{"id": said}]}, "finish_reason": said}
    events = [
        {"id": said, "model": said, "choices": [ended], "usage": {said: said}},
        {"error": {"message": f"bad key {said}"}}, {"error": {"message": "x" * 290 + said}},
        {"error": said}, {"type": said}, said,
    ]  # fmt: skip
    script = [*chunks(*sse(*events), f"data: {said}".encode(), end=False), 30.0]
    headers = {
        "X-Api-Key": keys[0], "Cookie": f'sid={keys[1]}; b="{keys[2]}"', "Api-Key": keys[3],
        "Authorization": f"Basic {keys[5]}", "X-Session-ID": keys[0], "User-Agent": said,
    }  # fmt: skip
    with scripted(lambda seen: script) as upstream:
        with recorded(tmp_path, upstream.url, "silent_s = 0.3") as recorder:
            if killed:
                left = dict[Path, bytes]()
                end = recorder.ledger.end

                def ended(exchange: ExchangeJournal, *rest: Any) -> None:
                    left[exchange.path] = exchange.path.read_bytes()
                    end(exchange, *rest)

                recorder.ledger.end = ended  # type: ignore[method-assign]
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                ask(base(recorder), f"/v1/{keys[0]}?key=query%2Fkey-4711", {**CHAT.request, "user": said}, headers)
        if killed:
            shutil.rmtree(tmp_path / "recorded")
            ((path, data),) = left.items()
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.write_bytes(data)
            with recorded(tmp_path, upstream.url) as recorder:
                ask(base(recorder), "/journeyman/health", method="GET")
    row = one_row(tmp_path)
    assert row["outcome"] == "cut"
    assert row["why"] == ("recorder_ended" if killed else "upstream_silent")
    assert len(row["errors"]) == 4
    for key in [*keys, "query%2Fkey-4711", keys[0][:8]]:
        assert key not in json.dumps(row)


def test_a_journal_on_a_disk_has_no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journeyman.gateway.journal._in_memory", lambda folder: False)
    seen = []
    with scripted(lambda _: [0.2, answer_of(b"{}")]) as upstream, recorded(tmp_path, upstream.url) as recorder:
        end = recorder.ledger.end

        def ended(exchange: ExchangeJournal, *rest: Any) -> None:
            seen.append(exchange.path.read_bytes())
            end(exchange, *rest)

        recorder.ledger.end = ended  # type: ignore[method-assign]
        ask(base(recorder), CHAT.path, CHAT.request, {"Authorization": f"Bearer {KEY}"})
    assert CHAT.path.encode() in seen[0]
    assert KEY.encode() not in seen[0]


def test_a_head_request_and_an_old_client(tmp_path: Path) -> None:
    script = chunks(b"one ", b"two", kind="text/plain")

    def answer(seen: Seen) -> list[bytes]:
        return script if "HEAD" not in seen.line else [answer_of(b"12345")[:-5]]

    with scripted(answer) as upstream, recorded(tmp_path, upstream.url) as recorder:
        status, headers, body = ask(base(recorder), "/v1/models", method="HEAD")
        parts = urlsplit(recorder.address)
        with socket.create_connection((parts.hostname, parts.port)) as client:
            client.sendall(b"GET /v1/old HTTP/1.0\r\nHost: localhost\r\n\r\n")
            got = b""
            while piece := client.recv(4096):
                got += piece
    assert (status, headers["Content-Length"], body) == (200, "5", b"")
    assert got.endswith(b"\r\n\r\none two")
    assert [row["outcome"] for row in rows_in(tmp_path)] == ["complete", "complete"]


def test_a_recorder_that_is_stopped_cuts_what_is_in_progress_and_says_so(tmp_path: Path) -> None:
    script = [*chunks(*sse(*CHAT.events[:3]), end=False), 30.0]
    with scripted(lambda seen: script) as upstream, recorded(tmp_path, upstream.url) as recorder:
        parts = urlsplit(recorder.address)
        client = socket.create_connection((parts.hostname, parts.port))
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
        got = b""
        while b"it up." not in got:
            got += client.recv(4096)
    client.close()
    row = one_row(tmp_path)
    assert (row["outcome"], row["why"]) == ("cut", "recorder_stopped")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_certificates_of_the_upstream_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with scripted(lambda seen: CHAT.script(stream=True), context) as upstream:
        url = f"https://localhost:{upstream.port}"
        with recorded(tmp_path, url) as recorder:
            status, _, body = ask(base(recorder), CHAT.path, CHAT.request)
            assert status == 502
            assert "certificate" in json.loads(body)["error"]["message"]
            assert upstream.seen == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        with recorded(tmp_path, url) as recorder:
            assert ask(base(recorder), CHAT.path, CHAT.request)[0] == 200
    assert [row.get("why") for row in rows_in(tmp_path)] == ["upstream_certificate", None]


RULES = """
[[record.roles]]
role = "counter"
path = "*/count_tokens"
[[record.roles]]
role = "tester"
header = "X-Agent: test*"
[[record.roles]]
role = "planner"
system = "^You are a planner"
model = "gpt-*"
"""


def test_roles_and_conversations(tmp_path: Path) -> None:
    plain = {**CHAT.request, "messages": [{"role": "user", "content": QUESTION}]}
    with (
        scripted(lambda seen: CHAT.script(stream=False)) as upstream,
        recorded(tmp_path, upstream.url, RULES) as recorder,
    ):
        for headers, request in (
            ({"X-Agent": "tester-2", "X-Session-ID": "s1", "X-Litellm-Session-Id": "s2"}, CHAT.request),
            ({"Journeyman-Conversation": "own", "X-Claude-Code-Session-Id": "cc"}, CHAT.request),
            ({"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}, plain),
            ({"X-Session-ID": "amy@corp.io"}, plain),
            ({}, CHAT.request),
            ({}, {**CHAT.request, "messages": [*CHAT.request["messages"], {"role": "assistant", "content": "More?"}]}),
        ):
            ask(base(recorder), CHAT.path, request, headers)
    rows = rows_in(tmp_path)
    assert [row["role"] for row in rows] == ["tester", "planner", "gpt-x", "gpt-x", "planner", "planner"]
    named = [row["conversation"] for row in rows]
    assert named[:3] == ["s1", "own", "a" * 32]
    assert named[3].startswith("id-")
    assert named[4] == named[5], "a conversation keeps its beginning"
    assert "Journeyman-Conversation" not in upstream.seen[1].headers


def test_health_and_metrics(tmp_path: Path) -> None:
    with (
        scripted(lambda seen: CHAT.script(stream=False)) as upstream,
        recorded(tmp_path, upstream.url, RULES) as recorder,
    ):
        ask(base(recorder), CHAT.path, CHAT.request)
        wait_until(lambda: recorder.ledger.counts.rows == 1)
        health = json.loads(ask(base(recorder), "/journeyman/health", method="GET")[2])
        metrics = ask(base(recorder), "/journeyman/metrics", method="GET")[2].decode()
        assert ask(base(recorder), "/journeyman/other", method="GET")[0] == 404
    assert (health["status"], health["requests"], health["rows_written"], health["lost"]) == ("ok", 1, 1, 0)
    assert 'journeyman_recorded_exchanges_total{role="planner",outcome="complete",status="200"} 1' in metrics
    assert len(upstream.seen) == 1


def test_one_recorder_for_a_folder(tmp_path: Path) -> None:
    with (
        scripted(lambda seen: CHAT.script(stream=False)) as upstream,
        recorded(tmp_path, upstream.url) as recorder,
        pytest.raises(UsageError, match="another journeyman"),
        recorded(tmp_path, upstream.url),
    ):
        pass
    assert recorder.ledger.counts.requests == 0


def test_a_recorder_that_is_stopped_before_it_runs_does_not_begin(tmp_path: Path) -> None:
    (tmp_path / "journeyman.toml").write_text("[record]\nshutdown_s = 0.5\n")
    with recording(tmp_path, "http://127.0.0.1:9", 0, maker=MakerHere) as recorder:
        recorder.stop()
        recorder.run()


@pytest.mark.parametrize("url", ["", "api.openai.com", "ftp://x", "https://user:pw@x", "https://x/?a=1", "http://"])
def test_what_is_no_upstream_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError), recorded(tmp_path, url):
        pass
