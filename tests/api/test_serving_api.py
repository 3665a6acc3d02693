"""run.serve(): a port in a thread of the program, asked and closed."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import httpx
import psutil
import pytest

import journeyman
from conftest import log_row, write_run
from journeyman.errors import EngineError, InputError, UsageError
from journeyman.serving.keyring import FILE, KeyFile


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> journeyman.Run:
    folder = tmp_path_factory.mktemp("served") / "run"
    run = journeyman.open(write_run(folder, tiny_gguf, [log_row(number) for number in range(40)]))
    run.export(override="a test")
    return run


@pytest.mark.slow
def test_a_server_answers_and_leaves_nothing_behind(exported: journeyman.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "0123456789abcdef0123")
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with exported.serve(0, key_env="A_KEY") as server:
        assert server.roles == ["coder"] and server.alive and server.url in repr(server)
        reply = server.chat("coder", "Task: x", max_tokens=4)
        assert str(reply) == reply.text and reply.finish_reason in ("stop", "length")
        assert reply.raw["usage"]["completion_tokens"] <= 4
        turns = [{"role": "user", "content": "Task: x"}]
        assert server.chat("coder", turns, max_tokens=4, temperature=0.0).text == reply.text
        with pytest.raises(UsageError, match="Its roles: coder"):
            server.chat("nobody", "Task: x")
        with pytest.raises(UsageError, match="slot_id"):
            server.chat("coder", "Task: x", slot_id=1)
        assert httpx.get(f"{server.url}/models").status_code == 401, "others need the key"
        assert {child.pid for child in psutil.Process().children(recursive=True)} - before, "the engine runs"
        port = int(server.url.split(":")[2].split("/")[0])
        with pytest.raises(UsageError, match=f"port {port}"):
            exported.serve(port)
        assert "open" in server._repr_html_()
    assert not server.alive and "closed" in server._repr_html_() and "closed" in repr(server)
    assert not {child.pid for child in psutil.Process().children(recursive=True)} - before
    assert not [one for one in threading.enumerate() if one.name.startswith("journeyman serve")]
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.1", port)) != 0, "the port is closed"
    with pytest.raises(EngineError, match="has ended"):
        server.chat("coder", "Task: x")
    server.close()


@pytest.mark.slow
def test_a_program_needs_no_key_for_its_own_server(exported: journeyman.Run) -> None:
    file = KeyFile(exported.folder / FILE)
    secret = file.add("another")
    try:
        with exported.serve(0) as server:
            assert server.chat("coder", "Task: x", max_tokens=4).text
            assert httpx.get(f"{server.url}/models").status_code == 401
            assert httpx.get(f"{server.url}/models", headers={"x-api-key": secret}).status_code == 200
            file.revoke("another")
            assert httpx.get(f"{server.url}/models", headers={"x-api-key": secret}).status_code == 401
            assert server.chat("coder", "Task: x", max_tokens=4).text
    finally:
        file.path.unlink()


@pytest.mark.slow
def test_a_server_that_cannot_start_says_why(exported: journeyman.Run, tmp_path: Path, tiny_gguf: Path) -> None:
    with pytest.raises(UsageError, match="key_env"):
        exported.serve(0, key_env="NO_SUCH_KEY")
    fresh = journeyman.open(write_run(tmp_path / "run", tiny_gguf, [log_row(1)]))
    with pytest.raises(InputError, match="has not been run"):
        fresh.serve(0)
