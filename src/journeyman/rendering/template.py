"""Renders a conversation with the base model's chat template.

The environment is the one that `transformers` documents for chat templates (apply_chat_template):
sandboxed and immutable, blocks trimmed, `raise_exception`, `strftime_now`, and a `tojson` that keeps
non-ASCII text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import Template, TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from journeyman.errors import InputError
from journeyman.models.base import TokenizerData


class ChatTemplate:
    """A compiled chat template with the special tokens that it can use.

    Raises:
        InputError: the template does not compile.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str], where: str) -> None:
        self.source = source
        self._special_tokens = special_tokens
        self.where = where
        self._template = _compile(source, where)

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool, tools: Sequence[Any] = ()
    ) -> str:
        """The prompt text of `messages`.

        Raises:
            InputError: the template refuses the conversation, for example two consecutive user turns.
        """
        try:
            return self._template.render(
                messages=list(messages),
                add_generation_prompt=add_generation_prompt,
                tools=list(tools) or None,
                **self._special_tokens,
            )
        except (TemplateError, TypeError) as error:
            roles = " → ".join(str(message.get("role")) for message in messages)
            raise InputError(f"{self.where}: the chat template refuses the turns {roles}: {error}") from error


def template_of(data: TokenizerData, where: str) -> ChatTemplate:
    """The chat template of a base, with the special tokens that it can use.

    Raises:
        InputError: the base has no template, or it does not compile.
    """
    source = data.chat_template
    if not isinstance(source, str):
        raise InputError(f"{where}: the model has no chat template", "Use an instruct (chat) model as base")
    ids = {"bos_token": data.begin_id, "eos_token": data.end_id}
    tokens = data.tokens or ()
    try:
        special = {name: tokens[place] for name, place in ids.items() if place is not None}
    except (IndexError, TypeError) as error:
        raise InputError(f"{where}: the header's special tokens are damaged: {error!r}", "Use another GGUF") from error
    return ChatTemplate(source, special, where)


def _compile(source: str, where: str) -> Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise InputError(f"{where}: the chat template does not compile: {error}", "Use another GGUF") from error


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> None:
    raise TemplateError(message)
