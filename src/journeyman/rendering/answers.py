"""What the assistant writes between the end of the prompt and the token that ends its turn.

That is the answer, with what the chat template writes before it (the final channel of gpt-oss, a space) and with tool
calls in the template's form. Reasoning fits the prompt: where the prompt has opened a block of reasoning, an answer
without reasoning closes it first, and one with reasoning does not open it again. An empty block that a template writes
before the last answer is not trained, because serving accepts answers without one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from journeyman import reasoning
from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.records import Message, ToolCall
from journeyman.rendering.losses import lost_tool, lost_turn
from journeyman.rendering.template import ChatTemplate

_PAIRS = reasoning.markers()
_BLOCK = re.compile(
    "|".join(rf"{re.escape(start)}\s*(?:{re.escape(end)}\s*)?" for start, end in _PAIRS)
)  # an opening tag, or an empty block
_OTHER = "Set base.chat_template to another one"
_STRIP = 'Set curate.rules.reasoning = "strip"'
_MARK = "\x03"
_ASKED, _SAID = Message(role="user", content="\x01"), Message(role="assistant", content="\x02")
_SYSTEM = Message(role="system", content="\x04")
_PROBES = ([_ASKED], [_SYSTEM, _ASKED], [_ASKED, _SAID, _ASKED])


class Answer(NamedTuple):
    """An answer as text, and the token that ends it."""

    text: str
    end: str


class AnswerWriter:
    """Writes answers for one chat template.

    Attributes:
        end: the text of the token that ends a plain answer.
        same_before_all: what comes before every answer without tool calls, mostly nothing; None if that depends.

    Args:
        ends: the texts of the tokens at which the engine stops.

    Raises:
        InputError: the template ends an answer with another token.
    """

    def __init__(self, template: ChatTemplate, ends: Sequence[str]) -> None:
        self._template = template
        self._ends = sorted(ends, key=len, reverse=True)
        self.end = self._usual_end()
        self._reasons = any(tag in template.served.source for pair in _PAIRS for tag in pair)
        leads = {lead for messages in _PROBES if (lead := self._probed(messages)) is not None}
        self._lead = leads.pop() if len(leads) == 1 else None
        self.same_before_all = None if self._reasons else self._lead

    def write(
        self, prompt: str, messages: Sequence[Message], answer: str, calls: Sequence[ToolCall], tools: Sequence[Any]
    ) -> Answer:
        """The answer as it follows `prompt`.

        Raises:
            InputError: the template does not support tool calls, leaves out the answer's text, or has ended reasoning
                that the answer contains.
        """
        if calls:
            return self._with_calls(prompt, messages, answer, calls, tools)
        lead = self._lead_of(prompt, messages, tools) if self._lead is None else self._lead
        return Answer(self._after(prompt, lead, answer), self.end)

    def opens_reasoning(self, prompt: str) -> bool:
        """Whether the prompt ends within reasoning."""
        block = _block_at_end(prompt)
        return block is not None and not _is_closed(block)

    def _after(self, prompt: str, lead: str, answer: str) -> str:
        """The answer with what comes before it, in a template that knows reasoning."""
        block, thinks = _block_at_end(prompt), reasoning.closes(answer, _PAIRS)
        if block is None:
            return lead + answer
        start, end = next(pair for pair in _PAIRS if pair[0] in block)
        if not _is_closed(block):
            if end in answer:
                return lead + answer.removeprefix(start).lstrip("\n")
            gap = "" if block.endswith("\n") else "\n"
            return f"{lead}{gap}\n{end}\n\n{answer}"
        if thinks:
            raise InputError(
                f"the chat template of {self._template.where} ends reasoning in the prompt, but the answer has some",
                f"{_STRIP}, or base.template_options so that the base may reason",
            )
        return lead + answer

    def _with_calls(
        self, prompt: str, messages: Sequence[Message], answer: str, calls: Sequence[ToolCall], tools: Sequence[Any]
    ) -> Answer:
        block, thought, said = _block_at_end(prompt), "", answer
        if self._reasons and reasoning.closes(answer, _PAIRS):
            said, whole = reasoning.stripped(answer, _PAIRS), answer.rstrip()
            if not whole.endswith(said):
                raise InputError("reasoning in the middle of an answer that calls tools", _STRIP)
            thought = whole[: len(whole) - len(said)]
        turn = Message(role="assistant", content=said, tool_calls=list(calls))
        text, end = self._split_end(_without_block(self._written(prompt, messages, turn, tools)))
        where = f"the chat template of {self._template.where}"
        if (lost := lost_tool(text, [call.name for call in calls])) is not None:
            raise InputError(f"{where} leaves out the tool {lost!r}", "Use a base model whose template supports tools")
        if lost_turn(text, [("assistant", said)]) is not None:
            raise InputError(
                f"{where} leaves out the text of an answer that also calls tools",
                "Set base.chat_template to one that shows both",
            )
        return Answer(self._after(prompt, "", thought + text) if thought or block is not None else text, end)

    def _lead_of(self, prompt: str, messages: Sequence[Message], tools: Sequence[Any]) -> str:
        """What the template writes between the prompt and a plain answer, without an empty block of reasoning."""
        try:
            written = self._written(prompt, messages, Message(role="assistant", content=_MARK), tools)
        except InputError:
            return ""
        return _without_block(written.partition(_MARK)[0]) if _MARK in written else ""

    def _written(self, prompt: str, messages: Sequence[Message], turn: Message, tools: Sequence[Any]) -> str:
        """What the template writes for a turn of the assistant, after its header.

        Raises:
            InputError: it writes a part of it before.
        """
        turns = [*(m.as_chat() for m in messages), turn.as_chat()]
        full = self._template.render(turns, add_generation_prompt=False, tools=tools)
        block = _block_at_end(prompt)
        header = prompt if block is None else prompt[: len(prompt) - len(block)]
        if full.startswith(header):
            return full[len(header) :]
        # Some templates move the system prompt to the last user turn: then the texts are equal from that turn on.
        last = messages[-1].content.strip()
        begun = last + header.rpartition(last)[2]
        parts = full.split(begun, header.count(begun)) if last and begun in header else []
        if len(parts) == header.count(begun) + 1:
            return parts[-1]
        raise InputError("the chat template writes a tool call where the prompt should be", "Use another base model")

    def _probed(self, messages: Sequence[Message]) -> str | None:
        try:
            prompt = self._template.render([m.as_chat() for m in messages], add_generation_prompt=True)
        except InputError:
            return None
        return self._lead_of(prompt, messages, ())

    def _usual_end(self) -> str:
        """The token with which the template ends a plain answer; the engine stops only at its own."""
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
        closed = self._template.render(turns, add_generation_prompt=False)
        _, shows, after = closed.rpartition(_MARK)
        if shows:  # some templates write a second token after the last turn's; the engine stops at the first
            found = next((end for end in self._ends if after.strip().startswith(end)), None)
        else:
            found = next((end for end in self._ends if closed.rstrip().endswith(end)), None)
        if found is None:
            shown = ", ".join(map(repr, self._ends[:10])) or "none"
            raise InputError(
                f"the chat template of {self._template.where} ends a turn with {plain(closed[-20:])!r}, not with a "
                f"terminator, at which the engine stops ({shown})",
                "Set base.chat_template to one that ends turns with one of them",
            )
        return found

    def _split_end(self, text: str) -> tuple[str, str]:
        """The text of a turn, and the token that ends it; more turns may not follow."""
        at = {end: text.index(end) for end in self._ends if end in text}
        if not at:
            return text.rstrip(), self.end
        end = min(at, key=lambda one: (at[one], -len(one)))
        rest = text[at[end] :]
        for one in self._ends:
            rest = rest.replace(one, "")
        if rest.strip():
            raise InputError(f"the chat template of {self._template.where} writes several turns for an answer", _OTHER)
        return text[: at[end]], end


def _block_at_end(prompt: str) -> str | None:
    """The opening tag or the empty block of reasoning at the end of a prompt, with the white space after it."""
    tail = prompt[-60:]
    if not any(tag in tail for pair in _PAIRS for tag in pair):
        return None
    found = [match[0] for match in _BLOCK.finditer(tail) if match.end() == len(tail)]
    return found[-1] if found else None


def _is_closed(block: str) -> bool:
    return any(end in block for _, end in _PAIRS)


def _without_block(text: str) -> str:
    """The text without an empty block of reasoning at its beginning."""
    block = _BLOCK.match(text)
    return text[block.end() :] if block and _is_closed(block[0]) else text
