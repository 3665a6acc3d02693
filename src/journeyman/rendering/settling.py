"""Settles what a chat template would otherwise take from the day or from the engine.

Some templates write today's date, and switches such as `enable_thinking` have one default in `transformers` and may
have another one in an engine. A model must not be served with another prompt than it was trained with, so each of these
has one value, which training uses and the engine is given.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.meta import find_undeclared_variables

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.base import TemplateChoice, TokenizerData
from journeyman.rendering.bounded_jinja import BoundedEnvironment, compiled
from journeyman.rendering.jinja_filters import FUNCTIONS
from journeyman.rendering.jinja_work import limited_work
from journeyman.rendering.named import fits

FIXED_DATE = datetime.date(2025, 1, 1)
"""Today's date for a template that writes it and has no default of its own."""
_NOW = "strftime_now"
_DATES = {"date_string": "%d %b %Y", "datetime": "%b %d %Y"}
"""Variables to which llama.cpp gives today's date (common/chat.cpp), in these formats."""
_THINKING = "enable_thinking"
_GIVEN = {"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", *_DATES, _NOW}
_MARK = "\ue000date\ue001"
_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks up.",
        "parameters": {"type": "object", "properties": {"key": {"type": "string", "description": "A key."}}},
    },
}
_ASKED, _SAID = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
_SYSTEM = {"role": "system", "content": "c"}
_CONVERSATIONS: Sequence[tuple[Sequence[Mapping[str, Any]], Sequence[Any]]] = (
    ((_ASKED,), ()),
    ((_SYSTEM, _ASKED), ()),
    ((_ASKED, _SAID, _ASKED), ()),
    ((_SYSTEM, _ASKED), (_TOOL,)),
)


@dataclass(frozen=True)
class Settled:
    """A chat template with everything that it gets besides a conversation.

    Attributes:
        source: in Jinja.
        tool_source: for conversations with tools, if the base has another template for them.
        variables: the values of its other variables.
        own: `source` and `tool_source` are unchanged from the base's file.
        name: how the user names the template; "" for the base's own.
        replaces: the base has a template of its own, which is not used.
        date: today's date as the template writes it, if it does.
        chosen: the user set options or a date, or the template needs them, so that its prompts are not those that
            another program makes with the base's file.
        end_token: the base's end token.
    """

    source: str
    tool_source: str | None
    variables: Mapping[str, Any]
    own: bool
    name: str = ""
    replaces: bool = False
    date: str = ""
    chosen: bool = False
    end_token: str = ""


def settled(data: TokenizerData, special_tokens: Mapping[str, str], where: str) -> Settled:
    """The template of a base, or the one that the user chose for it, with its date and switches settled.

    Raises:
        InputError: there is no template; it does not compile; it has no such option; or it needs one to be set.
    """
    choice = data.choice or TemplateChoice()
    source, tool_source = (one if isinstance(one, str) else None for one in (data.chat_template, data.tool_template))
    own = choice.source is None
    if choice.source is not None:
        source, tool_source = choice.source, None
    if source is None:  # llama.cpp takes the one for tools then
        source, tool_source = tool_source, None
    if source is None:
        raise InputError(
            f"{where}: the model has no chat template", f"Set base.chat_template to its format: {fits(data)}"
        )
    found = _Variables(source, tool_source, special_tokens, where)
    found.refuse_unknown(choice.options)
    variables = {**choice.options}
    if _THINKING in found.names and _THINKING not in variables:
        variables[_THINKING] = found.thinking(variables)
    day, shown = choice.date or FIXED_DATE, ""
    for name, form in _DATES.items():
        if name in found.names and name not in variables:
            default = None if choice.date else found.default_of(name, variables)
            variables[name] = shown = default or day.strftime(form)
    if choice.date and not found.names & {*_DATES, _NOW}:
        raise InputError(f"{where}: the chat template does not write today's date", "Remove base.template_date")
    if _NOW in found.names:
        if tool_source is not None:
            raise InputError(
                f"{where}: two chat templates that write today's date", "Set base.chat_template to a file with one"
            )
        source, own = found.fixed_now(day), False
        shown = shown or day.isoformat()
    replaces = choice.source is not None and data.chat_template is not None
    chosen = bool(choice.options or choice.date or shown)
    end_token = special_tokens.get("eos_token", "")
    return Settled(source, tool_source, variables, own, choice.name, replaces, shown, chosen, end_token)


class _Variables:
    """The variables of a template (or of two), and how its prompts depend on them."""

    def __init__(self, source: str, tool_source: str | None, special: Mapping[str, str], where: str) -> None:
        self._source, self._special, self._where = source, special, where
        sources = [one for one in (source, tool_source) if one is not None]
        try:
            self._templates = [compiled(one) for one in sources]
            with limited_work():
                self._trees = [BoundedEnvironment().parse(one) for one in sources]
                self.names = set[str]().union(*map(find_undeclared_variables, self._trees)) - FUNCTIONS.keys()
        except TemplateError as error:
            why = f"{where}: the chat template does not compile: {plain(str(error), 300)}"
            raise InputError(why, "Set base.chat_template to another one") from error

    def refuse_unknown(self, options: Mapping[str, Any]) -> None:
        """Refuses options that the template does not have: they would change nothing."""
        for name in options:
            if name not in self.names or name in _GIVEN - set(_DATES):
                known = ", ".join(sorted(self.names - _GIVEN)) or "none"
                raise InputError(
                    f"base.template_options: the chat template of {self._where} has no option {plain(name, 60)!r}",
                    f"Its options: {plain(known, 300)}",
                )

    def thinking(self, variables: Mapping[str, Any]) -> bool:
        """The value of `enable_thinking` that is the same as none: engines always give it one."""
        unset = self._prompts(variables)
        for value in (True, False):
            if self._prompts({**variables, _THINKING: value}) == unset:
                return value
        raise InputError(
            f"{self._where}: the chat template has another prompt for each of {_THINKING} = true, false and unset",
            f"Set base.template_options = {{ {_THINKING} = false }}, or true",
        )

    def default_of(self, name: str, variables: Mapping[str, Any]) -> str | None:
        """The text that the template writes if the variable has no value; None if it writes none."""
        without = self._prompts(variables, dated=False)
        for unset, marked in zip(without, self._prompts({**variables, name: _MARK}), strict=True):
            if unset is None or marked is None or _MARK not in marked:
                continue
            parts = marked.split(_MARK)
            rest = len(unset) - sum(map(len, parts))
            found = unset[len(parts[0]) : len(parts[0]) + rest // (len(parts) - 1)] if rest > 0 else ""
            if found and found.join(parts) == unset:
                return found
        return None

    def fixed_now(self, date: datetime.date) -> str:
        """The template with a `strftime_now` that always gives the same day.

        Raises:
            InputError: it computes the format of the date, so that its texts cannot be known before.
        """
        (tree,) = self._trees
        calls = [
            call for call in tree.find_all(nodes.Call) if isinstance(call.node, nodes.Name) and call.node.name == _NOW
        ]
        forms = [call.args[0].value for call in calls if len(call.args) == 1 and isinstance(call.args[0], nodes.Const)]
        if len(forms) < len(calls):
            raise InputError(
                f"{self._where}: the chat template computes the format of today's date",
                "Set base.chat_template to another one",
            )
        day = datetime.datetime.combine(date, datetime.time())
        texts = ", ".join(f"{_quoted(form)}: {_quoted(day.strftime(form))}" for form in sorted(set(forms)))
        made = "{{ {" + texts + "}[format] }}"
        # The line ends after a tag, so the template's own first line begins as it did.
        return f"{{%- macro {_NOW}(format) -%}}{made}{{%- endmacro %}}\n{self._source}"

    def _prompts(self, variables: Mapping[str, Any], *, dated: bool = True) -> list[str | None]:
        """A few short prompts; None for those that the template refuses. `dated`: it may ask for today's date."""
        given = {_NOW: lambda form: FIXED_DATE.strftime(form), **variables} if dated else variables
        return [self._prompt(messages, tools, given) for messages, tools in _CONVERSATIONS]

    def _prompt(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any], variables: Mapping[str, Any]
    ) -> str | None:
        given = {"messages": list(messages), "tools": list(tools) or None, "documents": None, **self._special}
        template = self._templates[-1 if tools else 0]
        try:
            with limited_work(len(messages)):
                return template.render(**given, **variables, add_generation_prompt=True)
        except Exception:  # a foreign program: it may fail in any way
            return None


def _quoted(text: str) -> str:
    """A text as a literal of Jinja, which reads escapes as Python does."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
