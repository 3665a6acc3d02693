"""W&B Weave calls, as exported by the client, the service API and the web page.

Source: Weave's "Call schema reference" and "Query and export calls". Every traced function is a call. Model calls are
those of the clients that Weave patches (openai, anthropic, …) and others with messages and an answer of a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import sources as why
from journeyman.records import Interaction
from journeyman.sources.answering import answers_of, interactions_of, with_echo
from journeyman.sources.asking import asked_of
from journeyman.sources.fields import (
    NotAnInteraction,
    at_path,
    between_ms,
    decoded,
    first,
    iso_time,
    mapping,
    named_role,
    text_or_none,
    whole,
    without,
)
from journeyman.sources.place import Place
from journeyman.sources.status import claimed

_CLIENTS = re.compile(
    r"(openai|anthropic|litellm|google|genai|vertexai|mistralai|groq|cohere|bedrock|together|cerebras|huggingface"
    r"|langchain\.(llm|chatmodel))[\w.]*\.(create|parse|stream|a?completion|generate_content(_stream)?|complete|chat"
    r"|invoke|converse|chat_completion)|langchain\.(llm|chatmodel)\.\w+|litellm\.a?completion|send_message",
    re.IGNORECASE,
)
_ANSWERS = ("choices", "candidates", "generations", "content", "output")
_READ = ("id", "inputs", "output", "exception", "started_at", "ended_at", "trace_id")


def claims(row: Mapping[str, Any]) -> bool:
    return "op_name" in row and ("started_at" in row or "trace_id" in row)


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction]:
    row = _nested(row)
    inputs, summary = mapping(row.get("inputs")), mapping(row.get("summary"))
    output = decoded(row.get("output"))
    _refuse_others(str(row.get("op_name")), inputs, mapping(output))
    for name, value in (*((f"inputs.{key}", value) for key, value in inputs.items()), ("output", output)):
        if isinstance(value, str) and value.startswith("weave:///") and name not in ("inputs.self", "inputs.model"):
            raise NotAnInteraction(
                why.NotLogged(f"{name} is a reference", "export the calls with their references expanded")
            )
    call = with_echo(asked_of(inputs, "inputs"), output, "output")
    attributes, settings = mapping(row.get("attributes")), call.settings
    base = {
        "id": text_or_none(row.get("id")) or place.source,
        "source": place.source,
        "role": named_role(attributes) or place.role,
        "tools": call.tools,
        "model": text_or_none(first(mapping(output).get("model"), settings.get("model"))),
        "duration_ms": between_ms(row.get("started_at"), row.get("ended_at")),
        "max_tokens": whole(first(settings.get("max_completion_tokens"), settings.get("max_tokens"))),
        "timestamp": iso_time(row.get("started_at")),
        "session": text_or_none(first(row.get("thread_id"), row.get("trace_id"))),
        "extra": without(row, *_READ) | without({"request": settings, "response": without(mapping(output), *_ANSWERS)}),
    }
    told = first(at_path(summary, "weave.status"), summary.get("status"))
    status = claimed({"exception": row.get("exception"), "status": told})
    yield from interactions_of(base, call, answers_of(output, "output"), status)


def _nested(row: Mapping[str, Any]) -> dict[str, Any]:
    """Nests the columns of the web page's tables: inputs.messages, summary.weave.status."""
    whole_: dict[str, Any] = {}
    for name, value in row.items():
        head, _, rest = name.partition(".")
        if head in ("inputs", "output", "summary", "attributes") and rest:
            held = whole_.setdefault(head, {})
            for part in rest.split(".")[:-1]:
                held = held.setdefault(part, {}) if isinstance(held, dict) else {}
            if isinstance(held, dict):
                held[rest.split(".")[-1]] = decoded(value)
        elif head not in whole_:
            whole_[name] = value
    return whole_


def _refuse_others(name: str, inputs: Mapping[str, Any], output: Mapping[str, Any]) -> None:
    op = name.rsplit("/", 1)[-1].split(":")[0]
    if not _CLIENTS.search(op) and not ("messages" in inputs and output.keys() & set(_ANSWERS)):
        raise NotAnInteraction(why.NotAModelCall("a call", plain(op, 60)))
