"""The form of a request that all dialects share, and the validation of the fields that mean the same in several.

Every field is validated and used, reported as ignored, or refused: nothing is dropped silently. A null field counts as
absent, as OpenAI's clients intend it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from journeyman.foreign import plain
from journeyman.serving.errors import RequestError
from journeyman.serving.schema_limits.limits import check_schemas
from journeyman.serving.values import Check, number, text, truth, whole, wrong

MAX_STOPS = 16


@dataclass
class Asked:
    """A valid request.

    Attributes:
        messages: turns as chat completions have them, with plain text as content.
        options: fields that are passed to the engine unchanged.
        ignored: names of fields that were sent and have no effect.
        given: the client's fields, for dialects whose answers repeat them.
        places: where each turn stands in the client's request; empty: messages[0], messages[1], …
        turns: the field with the turns.
        copies: how many answers are wanted.
        alternatives: how many other tokens the client wants to see with each, if it wants log probabilities.
    """

    role: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    options: dict[str, Any]
    ignored: list[str] = field(default_factory=list)
    given: Mapping[str, Any] = field(default_factory=dict)
    places: Sequence[str] = ()
    turns: str = "messages"
    copies: int = 1
    alternatives: int = 0

    def place(self, turn: int) -> str:
        """The name of a turn in the client's request, for errors."""
        return self.places[turn] if turn < len(self.places) else f"messages[{turn}]"

    @property
    def streamed(self) -> bool:
        return bool(self.options.get("stream"))

    @property
    def must_call(self) -> bool:
        """Whether the answer has to contain a tool call."""
        return self.options.get("tool_choice") == "required"


def fields_of(body: Any, roles: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The role that is asked, and the fields that are not null.

    Raises:
        RequestError: 404 for a role that is not served, else 400.
    """
    if not isinstance(body, dict):
        raise RequestError(400, "the body must be a JSON object")
    role = body.get("model")
    if not isinstance(role, str):
        raise wrong("model", "text, the name of a role", role)
    if role not in roles:
        known = plain(", ".join(roles), 200)
        message = f"model {plain(role, 80)!r} is not served here; roles: {known}"
        raise RequestError(404, message, "model", "model_not_found")
    return role, {name: value for name, value in body.items() if value is not None}


def options_of(
    given: Mapping[str, Any],
    checks: Mapping[str, Check],
    unsupported: Mapping[str, str],
    read: Collection[str],
    ignored: list[str],
) -> dict[str, Any]:
    """The fields with a check, validated; those that are neither checked nor `read` elsewhere are ignored.

    A check that returns None found a value without an effect, which is left out.

    Args:
        unsupported: field → why it cannot be served.
        ignored: the names of ignored fields are added to it.

    Raises:
        RequestError: names the field.
    """
    options = {}
    for name, value in given.items():
        if name in checks:
            if (checked := checks[name](value, name)) is not None:
                options[name] = checked
        elif name in unsupported:
            raise RequestError(400, f"{name} is not supported: {unsupported[name]}", name, "unsupported_parameter")
        elif name not in read:
            ignored.append(name)
    return options


def sampling_checks(context: int) -> dict[str, Check]:
    """The checks of the options that have the same name in OpenAI's three APIs."""
    return {
        "temperature": number(0, 2), "top_p": number(0, 1), "stream": truth, "seed": whole(-(1 << 63), (1 << 63) - 1),
        "presence_penalty": number(-2, 2), "frequency_penalty": number(-2, 2), "max_tokens": whole(1, context),
    }  # fmt: skip


def check_needs(options: Mapping[str, Any], needs: Mapping[str, str]) -> None:
    """Raises a RequestError if a field is sent without the one that gives it a meaning."""
    for name, needed in needs.items():
        if name in options and not options.get(needed):
            raise RequestError(400, f"{name} needs {needed}: true", name)


def check_answer_form(
    options: Mapping[str, Any], tools: Sequence[Mapping[str, Any]], form: str, schema: str, parameters: str
) -> None:
    """Raises a RequestError if the answer's schema and the tools' schemas are too much for the engine.

    Args:
        form: the field that asks for JSON.
        schema: the field with the answer's schema.
        parameters: the field with a tool's schema; {} is replaced by the tool's place.
    """
    wanted = options.get("response_format", {})
    if tools and wanted:
        raise RequestError(400, f"{form} and tools cannot be used together", form)
    schemas = [(schema, wanted["json_schema"]["schema"])] if "json_schema" in wanted else []
    named = [(parameters.replace("{}", str(place)), tool["function"]) for place, tool in enumerate(tools)]
    schemas += [(param, one["parameters"]) for param, one in named if one.get("parameters") is not None]
    check_schemas(schemas)


def stops(value: Any, param: str) -> Any:
    """Validates texts that end an answer: one or a list."""
    if isinstance(value, str):
        return text(1000)(value, param)
    if not isinstance(value, list) or len(value) > MAX_STOPS:
        raise RequestError(400, f"{param} must be text or a list of at most {MAX_STOPS} texts", param)
    return [text(1000)(one, f"{param}[{index}]") for index, one in enumerate(value)]
