"""The clients that people use, against the port with the embedded model. What counts is the protocol, not the wit.

requirements/dev.txt has openai, anthropic and Inspect AI, without which their tests fail. LangChain and LiteLLM come
with `make clients`, which sets JOURNEYMAN_CLIENTS; without it, their tests are skipped.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

import pytest

from fake_engine import BUNDLE
from journeyman.api.hosting import Host, address_of, open_listener
from journeyman.inference.engines import running_engine
from journeyman.models.gguf_file import GgufFile
from journeyman.protocols import EngineSettings
from journeyman.serving.keyring import Keys
from test_control_tokens import WITH_TOOLS

pytestmark = pytest.mark.slow

KEY = "k" * 32
QUESTION = "List three colors."
ASKED: Any = [{"role": "user", "content": QUESTION}]
CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Paris"]}}, "required": ["city"]}
SETTINGS = {"context": 1024, "max_new_tokens": 64, "temperature": 0.0, "threads": 1, "parallel": 2}


def further(name: str) -> Any:
    """A client's module; the test is skipped without it, unless it must be there."""
    return importlib.import_module(name) if os.environ.get("JOURNEYMAN_CLIENTS") else pytest.importorskip(name)


@pytest.fixture(scope="module")
def url(embedded: GgufFile) -> Iterator[str]:
    """The base URL, up to /v1, of a port that needs KEY; its one role has no system prompt."""
    bundle = BUNDLE.model_copy(
        update={"roles": ["coder"], "system_prompts": {}, "redact": {}, "settings": SETTINGS}
    )  # fmt: skip
    listener = open_listener("127.0.0.1", 0)
    settings = EngineSettings(embedded.path, {}, 1024, 1, 0.0, parallel=2, chat_template=WITH_TOOLS)
    with running_engine(settings) as engine:
        host = Host(bundle, engine, listener, lambda text: None, keys=Keys(KEY))
        listener.listen()
        thread = threading.Thread(target=host.run)
        thread.start()
        yield address_of("127.0.0.1", listener.getsockname()[1])
        host.stop()
        thread.join()


@pytest.fixture(scope="module")
def text(url: str) -> str:
    """What every client must get."""
    import httpx

    body = {"model": "coder", "messages": ASKED}
    answer = httpx.post(f"{url}/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"}, timeout=60)
    found = str(answer.json()["choices"][0]["message"]["content"])
    assert len(found) > 10
    return found


def test_openai(url: str, text: str) -> None:
    import openai
    import pydantic

    client = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0)
    assert [one.id for one in client.models.list()] == ["coder"]
    whole = client.chat.completions.create(model="coder", messages=ASKED)
    assert whole.choices[0].message.content == text and whole.usage.total_tokens > 10
    chunks = list(
        client.chat.completions.create(
            model="coder", messages=ASKED, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert client.completions.create(model="coder", prompt=QUESTION).choices[0].text == text
    pieces = client.completions.create(model="coder", prompt=QUESTION, stream=True)
    assert "".join(one.choices[0].text for one in pieces) == text

    class Color(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        name: Literal["red", "green"]

    parsed = client.chat.completions.parse(model="coder", messages=ASKED, response_format=Color)
    assert parsed.choices[0].message.parsed.name in ("red", "green")
    tool: Any = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}
    with client.chat.completions.stream(model="coder", messages=ASKED, tools=[tool], tool_choice="required") as stream:
        (call,) = stream.get_final_completion().choices[0].message.tool_calls
    assert call.function.name == "get_weather" and call.function.arguments.startswith("{") and call.id
    with pytest.raises(openai.NotFoundError, match="roles: coder"):
        client.chat.completions.create(model="poet", messages=ASKED)
    with pytest.raises(openai.BadRequestError, match="1024 tokens"):
        client.chat.completions.create(model="coder", messages=[{"role": "user", "content": "word " * 2000}])
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=url, api_key="no", max_retries=0).models.list()


def test_openai_responses(url: str, text: str) -> None:
    import openai

    client = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0)
    whole = client.responses.create(model="coder", input=QUESTION)
    assert whole.output_text == text and whole.usage.output_tokens > 5
    with client.responses.stream(model="coder", input=ASKED) as stream:
        numbers = [event.sequence_number for event in stream if event.type != "response.output_text.delta"]
        assert stream.get_final_response().output_text == text
    assert numbers == sorted(set(numbers)) and numbers[0] == 0
    tool: Any = {"type": "function", "name": "get_weather", "parameters": CITY}
    with client.responses.stream(model="coder", input=QUESTION, tools=[tool], tool_choice="required") as stream:
        for _ in stream:
            pass
        (call,) = stream.get_final_response().output
    assert call.type == "function_call" and json.loads(call.arguments)["city"] in ("Rome", "Paris")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    turns = [{"role": "user", "content": QUESTION}, call, result]
    assert client.responses.create(model="coder", input=turns, tools=[tool]).status in ("completed", "incomplete")


def test_anthropic(url: str, text: str) -> None:
    import anthropic

    root = url.removesuffix("/v1")
    client = anthropic.Anthropic(base_url=root, api_key=KEY, max_retries=0)
    assert [one.id for one in client.models.list()] == ["coder"]
    whole = client.messages.create(model="coder", max_tokens=64, messages=ASKED)
    assert whole.content[0].text == text
    counted = client.messages.count_tokens(model="coder", messages=ASKED)
    assert counted.input_tokens == whole.usage.input_tokens + whole.usage.cache_read_input_tokens
    with client.messages.stream(model="coder", max_tokens=64, messages=ASKED) as stream:
        assert "".join(stream.text_stream) == text
        assert stream.get_final_message().usage.output_tokens == whole.usage.output_tokens
    tool: Any = {"name": "get_weather", "input_schema": CITY}
    choice: Any = {"type": "tool", "name": "get_weather"}
    with client.messages.stream(
        model="coder", max_tokens=64, messages=ASKED, tools=[tool], tool_choice=choice
    ) as stream:
        (call,) = stream.get_final_message().content
    assert call.type == "tool_use" and call.input["city"] in ("Rome", "Paris")
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]}
    turns = [*ASKED, {"role": "assistant", "content": [call]}, result]
    assert client.messages.create(model="coder", max_tokens=8, messages=turns, tools=[tool]).type == "message"
    with pytest.raises(anthropic.NotFoundError, match="roles: coder"):
        client.messages.create(model="poet", max_tokens=8, messages=ASKED)
    with pytest.raises(anthropic.AuthenticationError):
        anthropic.Anthropic(base_url=root, api_key="no", max_retries=0).models.list()


def test_an_asynchronous_client_that_stops_reading(url: str) -> None:
    import openai

    async def scene() -> float:
        async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
            for _ in range(6):
                stream = await client.chat.completions.create(
                    model="coder", messages=ASKED, stream=True, max_tokens=900, temperature=1.9
                )
                async for _ in stream:
                    break
                await stream.close()
            start = time.monotonic()
            await client.chat.completions.create(model="coder", messages=ASKED, max_tokens=1)
            return time.monotonic() - start

    assert asyncio.run(scene()) < 30, "the slots are free again; six whole answers would take a minute"


def test_langchain(url: str, text: str) -> None:
    langchain_openai, langchain_anthropic = further("langchain_openai"), further("langchain_anthropic")
    messages = further("langchain_core.messages")
    tool = {"name": "get_weather", "description": "The weather of a city", "parameters": CITY}
    shared = {"api_key": KEY, "model": "coder", "temperature": 0, "max_retries": 0}
    for model in (
        langchain_openai.ChatOpenAI(base_url=url, **shared),
        langchain_openai.ChatOpenAI(base_url=url, use_responses_api=True, **shared),
        langchain_anthropic.ChatAnthropic(base_url=url.removesuffix("/v1"), max_tokens=64, **shared),
    ):
        assert model.invoke(QUESTION).text.startswith(text)
        assert "".join(chunk.text for chunk in model.stream(QUESTION)).startswith(text)
        called = model.bind_tools([tool], tool_choice="any").invoke(QUESTION)
        (call,) = called.tool_calls
        assert call["name"] == "get_weather" and call["args"]["city"] in ("Rome", "Paris")
        result = messages.ToolMessage("sunny", tool_call_id=call["id"])
        turns = [messages.HumanMessage(QUESTION), called, result]
        assert model.bind_tools([tool]).invoke(turns).usage_metadata["total_tokens"] > 10


def test_litellm(url: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would be fetched from the network
    litellm = further("litellm")
    root = url.removesuffix("/v1")
    for model, base in (("openai/coder", url), ("anthropic/coder", root)):
        asked: Any = {"model": model, "api_base": base, "api_key": KEY, "messages": ASKED, "max_tokens": 64}
        assert litellm.completion(**asked).choices[0].message.content == text
        pieces = litellm.completion(**asked, stream=True)
        assert "".join(one.choices[0].delta.content or "" for one in pieces) == text
    answer = litellm.responses(model="openai/coder", api_base=url, api_key=KEY, input=QUESTION)
    assert answer.output[0].content[0].text == text


def test_inspect_ai(url: str, text: str) -> None:
    from inspect_ai import model as models
    from inspect_ai import tool as tools

    model = models.get_model("openai-api/journeyman/coder", base_url=url, api_key=KEY)
    city = tools.ToolParam(type="string", enum=["Rome", "Paris"], description="the city")
    weather = tools.ToolInfo(
        name="get_weather", description="d", parameters=tools.ToolParams(properties={"city": city}, required=["city"])
    )

    async def scene() -> None:
        config = models.GenerateConfig(temperature=0, max_tokens=64, logprobs=True, top_logprobs=2)
        answer = await model.generate(QUESTION, config=config)
        assert answer.completion == text and answer.usage.output_tokens > 5
        assert answer.choices[0].logprobs.content[0].logprob <= 0
        called = await model.generate(QUESTION, tools=[weather], tool_choice="any")
        (call,) = called.message.tool_calls
        assert call.function == "get_weather" and call.arguments["city"] in ("Rome", "Paris")

    asyncio.run(scene())
