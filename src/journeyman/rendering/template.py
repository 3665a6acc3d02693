"""Renders a conversation with the base model's chat template.

Variables, functions and filters are those that `transformers` gives chat templates (apply_chat_template), and the work
of one rendering is limited (see bounded_jinja). The date and the switches of a template are settled once, so that
training and serving make the same prompts on every day (see settling).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Template, TemplateError

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.base import TokenizerData
from journeyman.rendering.bounded_jinja import compiled
from journeyman.rendering.jinja_work import limited_work
from journeyman.rendering.settling import Settled, settled

_SHOWN = 300


class ChatTemplate:
    """A compiled chat template with the variables that it gets.

    Attributes:
        served: what an engine must be given to make the same prompts.
        where: the file, for error messages.

    Raises:
        InputError: the template does not compile.
    """

    def __init__(self, served: Settled, special_tokens: Mapping[str, str], where: str) -> None:
        self.served, self.where = served, where
        self._variables = {**special_tokens, **served.variables}
        self._template = _compile(served.source, where)
        self._with_tools = self._template if served.tool_source is None else _compile(served.tool_source, where)

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool, tools: Sequence[Any] = ()
    ) -> str:
        """The prompt text of `messages`.

        Raises:
            InputError: the template refuses the conversation, for example two consecutive user turns; it fails, or
                does not come to an end.
        """
        template = self._with_tools if tools else self._template
        size = sum([len(turn["content"]) for turn in messages if isinstance(turn.get("content"), str)])
        try:
            with limited_work(len(messages) + len(tools), size):
                return template.render(
                    messages=list(messages),
                    add_generation_prompt=add_generation_prompt,
                    tools=list(tools) or None,
                    documents=None,
                    **self._variables,
                )
        except Exception as error:  # a foreign program: it may fail in any way
            why = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
            roles = " → ".join(plain(str(turn.get("role")), 20) for turn in messages[:20])
            refuses = f"{self.where}: the chat template refuses the turns {roles}: {plain(why, _SHOWN)}"
            raise InputError(refuses, "Set base.chat_template to one that takes such turns") from error


def template_of(data: TokenizerData, where: str) -> ChatTemplate:
    """The chat template of a base, as it is trained and served, with the special tokens that it can use.

    Raises:
        InputError: the base has no template, or it does not compile.
    """
    ids = {"bos_token": data.begin_id, "eos_token": data.end_id}
    tokens = data.tokens or ()
    try:
        special = {name: tokens[place] for name, place in ids.items() if place is not None}
    except (IndexError, TypeError) as error:
        raise InputError(f"{where}: the header's special tokens are damaged: {error!r}", "Use another GGUF") from error
    return ChatTemplate(settled(data, special, where), special, where)


def _compile(source: str, where: str) -> Template:
    try:
        return compiled(source)
    except TemplateError as error:
        raise InputError(
            f"{where}: the chat template does not compile: {plain(str(error), _SHOWN)}",
            "Set base.chat_template to another one",
        ) from error
