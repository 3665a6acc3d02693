"""Engines that run elsewhere: llama-server with its adapters, and servers on which an adapter is a model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

import journeyman
import journeyman.inference.remote as remote_module
from conftest import log_row, write_run, write_tiny_gguf
from fake_engine import ASK, BUNDLE
from fake_http import Asked, FakeHttp, Reply, fake_http, json_reply
from journeyman.api.hosting import hosted
from journeyman.errors import EngineError, StaleArtifact
from journeyman.http_client import client
from journeyman.inference.engines import running_engine
from journeyman.inference.remote import LLAMA_SERVER, OPENAI, RemoteEngine
from journeyman.protocols import EngineSettings
from journeyman.serving.app import make_app

CHAT = "/v1/chat/completions"
NAMES: dict[str | None, str] = {None: "base", "all": "tuned"}


def _settings(base: Path, **adapters: Path) -> EngineSettings:
    return EngineSettings(base, adapters, 512, 1, 0.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("base") / "base.gguf")


def _vllm(asked: Asked) -> Reply:
    """What vLLM answers, as far as it is asked here."""
    if asked.path == "/v1/models":
        return json_reply({"data": [{"id": "base"}, {"id": "tuned", "parent": "base"}]})
    if asked.path == "/version":
        return json_reply({"version": "0.99"})
    if asked.path == "/health":
        return Reply()
    if asked.path == "/tokenize":
        return json_reply({"count": 42, "max_model_len": 512, "tokens": []})
    if asked.path != CHAT:
        return json_reply({"detail": "Not Found"}, 404)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "ok"},
        "finish_reason": "stop",
        "stop_reason": "E",
    }
    return json_reply(
        {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "x", "choices": [choice]}
    )


@pytest.fixture
def vllm() -> Iterator[FakeHttp]:
    with fake_http(_vllm) as made:
        yield made


def test_an_adapter_that_is_a_model_is_asked_by_its_name(base: Path, vllm: FakeHttp) -> None:
    engine = RemoteEngine(vllm.url, "secret-key", _settings(base, all=Path("adapter.gguf")), NAMES)
    try:
        assert engine.kind == OPENAI and engine.engine_identity.version == "0.99" and engine.alive
        assert engine.selection("coder") == {"model": "tuned"} and engine.prompt_text([]) is None
        with TestClient(make_app(BUNDLE, engine)) as asking:
            answer = asking.post(CHAT, json=ASK)
            assert answer.status_code == 200 and answer.json()["model"] == "coder"
            asked = vllm.asked[-1]
            assert asked.json["model"] == "tuned" and "lora" not in asked.json
            assert asked.headers["authorization"] == "Bearer secret-key"
            message = asking.post("/v1/messages", json={**ASK, "max_tokens": 4, "stop_sequences": ["E"]}).json()
            assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "E")
            assert asking.post("/v1/messages/count_tokens", json=ASK).json() == {"input_tokens": 42}
    finally:
        engine.stop()


def test_a_server_without_the_model_or_the_key_is_refused(base: Path, vllm: FakeHttp) -> None:
    settings = _settings(base, all=Path("adapter.gguf"))
    with pytest.raises(EngineError, match="has no model 'other', but: base, tuned"):
        RemoteEngine(vllm.url, None, settings, {None: "base", "all": "other"})
    with fake_http(lambda asked: json_reply({}, 401)) as closed, pytest.raises(EngineError, match="wants a key"):
        RemoteEngine(closed.url, None, settings, NAMES)
    with pytest.raises(EngineError, match="cannot be reached"):
        RemoteEngine("http://127.0.0.1:9/v1", None, settings, NAMES)

    def llama(asked: Asked) -> Reply:
        return json_reply([{"id": 0, "path": "/srv/older.gguf", "scale": 1.0}])

    with fake_http(llama) as other, pytest.raises(EngineError, match=r"adapter\.gguf, but: older\.gguf"):
        RemoteEngine(other.url, None, settings, NAMES)


def test_no_proxy_of_the_environment_is_between_an_engine_and_those_who_ask_it(
    base: Path, vllm: FakeHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    engine = RemoteEngine(vllm.url, None, _settings(base, all=Path("adapter.gguf")), NAMES)
    try:
        with TestClient(make_app(BUNDLE, engine)) as asking:
            assert asking.post(CHAT, json=ASK).status_code == 200
    finally:
        engine.stop()
    with client({}, 5.0) as http:
        assert http.get(f"{vllm.address}/version").json() == {"version": "0.99"}
        with pytest.raises(httpx.ConnectError):  # the proxy, which is not there
            http.get("http://192.0.2.1/")


def test_a_server_that_comes_back_is_used_again(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_module, "_LOOK_EVERY_S", 0.02)
    broken: list[bool] = []

    def reply(asked: Asked) -> Reply:
        return json_reply({}, 503) if broken else _vllm(asked)

    with fake_http(reply) as server:

        def start() -> RemoteEngine:
            return RemoteEngine(server.url, None, _settings(base), NAMES)

        with TestClient(make_app(BUNDLE, start(), start=start)) as asking:
            assert asking.post(CHAT, json=ASK).status_code == 200
            broken.append(True)
            for _ in range(500):
                if asking.get("/ready").status_code == 503:
                    break
                time.sleep(0.01)
            else:
                pytest.fail("it was not noticed")
            broken.clear()
            assert asking.post(CHAT, json=ASK).status_code == 200, "the request waited"


@pytest.mark.slow
def test_llama_server_is_asked_with_the_adapters_number(base: Path) -> None:
    """The engine in the wheel is llama.cpp's server, so it can stand in for the user's."""
    with running_engine(_settings(base)) as own:
        key = own.headers["Authorization"].removeprefix("Bearer ")
        engine = RemoteEngine(own.address, key, _settings(base), NAMES)
        try:
            assert engine.kind == LLAMA_SERVER and engine.selection("coder") == {"lora": []}
            turns = [{"role": "user", "content": "hi"}]
            assert engine.prompt_text(turns) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
            with TestClient(make_app(BUNDLE, engine)) as asking:
                assert asking.post(CHAT, json=ASK).status_code == 200
                assert asking.post("/v1/messages/count_tokens", json=ASK).json()["input_tokens"] > 10
        finally:
            engine.stop()


@pytest.mark.slow
def test_a_bundle_is_served_by_the_users_llama_server(
    tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = journeyman.open(write_run(tmp_path / "run", tiny_gguf, [log_row(number) for number in range(40)]))
    run.export(override="a test")
    place = run.folder / "07-bundle"
    (adapter,) = place.glob("adapter*.gguf")
    (base,) = set(place.glob("*.gguf")) - {adapter}
    with running_engine(EngineSettings(base, {"all": adapter}, 512, 1, 0.0)) as theirs:
        monkeypatch.setenv("THEIR_KEY", theirs.headers["Authorization"].removeprefix("Bearer "))
        with (run.folder / "journeyman.toml").open("a") as file:
            file.write('[serve]\nengine_key_env = "THEIR_KEY"\n')
        with pytest.raises(StaleArtifact, match="evaluated with"), hosted(run.folder, 0, engine_url=theirs.address):
            pass
        told: list[str] = []
        opened = hosted(run.folder, 0, engine_url=theirs.address, allow_other_engine=True, told=told.append)
        with opened as host:
            assert host.engine.selection("coder") == {"lora": [{"id": 0, "scale": 1.0}]}
        assert any("verdict does not apply" in line for line in told)
    with pytest.raises(EngineError, match="cannot be reached"), hosted(run.folder, 0, engine_url=theirs.address):
        pass
