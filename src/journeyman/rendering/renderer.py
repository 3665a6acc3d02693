"""Messages → token ids and loss mask, in the same way for train, evaluate and serve.

A rendered example is the prompt (everything up to and including the assistant's header), then the answer, then the
terminator. Only the answer and its terminator carry loss.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.base import Base
from journeyman.records import Example, Message, ToolCall, tool_name
from journeyman.rendering.control import ControlTokens
from journeyman.rendering.runs import RunLimit
from journeyman.rendering.template import ChatTemplate, template_of
from journeyman.rendering.tokenizer import tokenizer_of

Tools = Sequence[dict[str, Any]]
_LEAST_COUNTED = 20
"""If several turns share a text longer than this, its occurrences are counted; shorter ones may occur by chance."""


@dataclass(frozen=True)
class Rendered:
    """Token ids of one example; `ids[prompt_tokens:]` are trained.

    Attributes:
        ends: the last id is the terminator; False for an answer that is cut off, whose end must not be learned.
        weight: the weight of each of its labels in the loss.
    """

    ids: list[int]
    prompt_tokens: int
    ends: bool = True
    weight: float = 1.0

    @property
    def trained_tokens(self) -> int:
        return len(self.ids) - self.prompt_tokens


class Renderer:
    """Renders with the tokenizer and the chat template of one base model.

    Raises:
        InputError: the base has no chat template, or a tokenizer that is not supported.
    """

    def __init__(self, base: Base) -> None:
        data = base.tokenizer
        self._template: ChatTemplate = template_of(data, str(base.path))
        self._tokenizer = tokenizer_of(data, str(base.path))
        self.terminator_id = _token_id(data.end_id, "the end of an answer", base)
        bos = [_token_id(data.begin_id, "the beginning of a text", base)] if data.adds_begin else []
        self._bos = bos
        self.control = ControlTokens(data)
        control = set(self.control.texts)
        self._control_ids = {number for number, token in enumerate(data.tokens or ()) if token in control}
        self._terminator = self.decode([self.terminator_id])
        self._bos_text = self.decode(bos)
        self._run_limit = RunLimit(data)
        self._check_terminator()
        self._answers_continue = not self._tokenizer.specials.ends_with_one(self._bare_prompt())

    def prompt_text(self, messages: Sequence[Message], tools: Tools = ()) -> str:
        """The prompt as text, up to and including the assistant's header.

        Raises:
            InputError: the template refuses the conversation, or leaves out a turn, tools or tool calls.
        """
        text = self._template.render([m.as_chat() for m in messages], add_generation_prompt=True, tools=tools)
        self._check_turns(text, messages)
        named = [tool_name(tool) for tool in tools] + [call.name for turn in messages for call in turn.tool_calls]
        self._check_tools(text, named)
        if length := self._run_limit.exceeded_by(text):
            raise InputError(f"{length:,} characters in a row are one piece of text, on which the engine crashes")
        return text

    def prompt_ids(self, messages: Sequence[Message], tools: Tools = ()) -> list[int]:
        """The prompt as token ids, identical in training, evaluation and serving."""
        ids = self._tokenizer.encode(self.prompt_text(messages, tools))
        return ids if self._bos and ids[:1] == self._bos else self._bos + ids

    def prompt_tokens(self, messages: Sequence[Message], tools: Tools = ()) -> int:
        """`len(prompt_ids(…))`, without encoding."""
        text = self.prompt_text(messages, tools)
        begun = bool(self._bos) and text.startswith(self._bos_text)
        return self._tokenizer.count(text) + (len(self._bos) if not begun else 0)

    def answer_text(
        self, messages: Sequence[Message], answer: str, calls: Sequence[ToolCall], tools: Tools = ()
    ) -> str:
        """What the assistant writes between header and terminator: the answer, with tool calls in the template's form.

        Raises:
            InputError: the template does not support tool calls.
        """
        if not calls:
            return answer
        turn = Message(role="assistant", content=answer, tool_calls=list(calls))
        prompt = self.prompt_text(messages, tools)
        full = self._template.render(
            [*(m.as_chat() for m in messages), turn.as_chat()], add_generation_prompt=False, tools=tools
        )
        if not full.startswith(prompt):
            raise InputError(
                "the chat template writes a tool call where the prompt should be", "Use another base model"
            )
        text = full[len(prompt) :].removeprefix(self._inserted(messages, prompt, tools))
        text = text.rstrip().removesuffix(self._terminator)
        self._check_tools(text, [call.name for call in calls])
        return text

    def example(self, row: Example) -> Rendered:
        """Renders prompt, answer and (unless the answer is cut off) terminator, with the loss mask.

        Raises:
            InputError: the template refuses the row, or the row contains a control token that the template did not add.
        """
        self._refuse_control_tokens(row)
        prompt = self.prompt_ids(row.messages, row.tools)
        answer = self.encode(self.answer_text(row.messages, row.answer, row.answer_calls, row.tools))
        end = [self.terminator_id] if row.ends else []
        self._prove_control_tokens(row, [*prompt, *answer])
        return Rendered(ids=[*prompt, *answer, *end], prompt_tokens=len(prompt), ends=row.ends, weight=row.weight)

    def count(self, text: str) -> int:
        """`len(encode(text))`, several times faster."""
        return self._tokenizer.count(text, self._answers_continue)

    def count_repeated(self, text: str) -> int:
        """`count` for texts that come again and again, such as system prompts."""
        return self._tokenizer.count_repeated(text, self._answers_continue)

    def injected_system_prompt(self) -> str | None:
        """The system prompt that the template adds to a conversation without one; None if it adds none."""
        asked, answered = Message(role="user", content="\x02"), Message(role="assistant", content="\x03")
        text = self.prompt_text([asked, answered, asked])
        before, between = text.split("\x02")[0], text.split("\x03")[1].split("\x02")[0]
        common = 0
        while common < min(len(before), len(between)) and before[-1 - common] == between[-1 - common]:
            common += 1
        added = before[: len(before) - common]
        for token in self.control.texts:
            added = added.replace(token, "\n")
        lines = [line for line in added.strip().splitlines() if line.strip() and line.strip() != "system"]
        return "\n".join(lines) or None

    def encode(self, text: str) -> list[int]:
        """The ids of an answer, which follows a prompt."""
        return self._tokenizer.encode(text, self._answers_continue)

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids)

    def _refuse_control_tokens(self, row: Example) -> None:
        if found := self.control.find_in_row(row.messages, row.answer, row.answer_calls, row.tools):
            raise InputError(f"row {_named(row)}: {found}", "Run: journeyman curate --redo")

    def _prove_control_tokens(self, row: Example, ids: Sequence[int]) -> None:
        """Checks that a row's control tokens are the template's own: those of the same row with harmless texts."""
        bare = _harmless(row, self.control)
        answer = self.answer_text(bare.messages, bare.answer, bare.answer_calls, bare.tools)
        own = [*self.prompt_ids(bare.messages, bare.tools), *self.encode(answer)]
        if self._control_in(ids) != self._control_in(own):
            raise InputError(
                f"row {_named(row)}: the chat template turns its text into control tokens",
                "Remove the row from the log, then run: journeyman ingest --redo",
            )

    def _control_in(self, ids: Sequence[int]) -> list[int]:
        return [token for token in ids if token in self._control_ids]

    def _inserted(self, messages: Sequence[Message], prompt: str, tools: Tools) -> str:
        """Text that the template inserts between prompt and answer: an empty reasoning block, for some models.

        Serving sends the prompt without it, and plain answers are trained without it, so calls are too.
        """
        mark = "\x03"
        turns = [*(m.as_chat() for m in messages), Message(role="assistant", content=mark).as_chat()]
        full = self._template.render(turns, add_generation_prompt=False, tools=tools)
        return full[len(prompt) :].partition(mark)[0] if full.startswith(prompt) and mark in full else ""

    def _check_turns(self, text: str, messages: Sequence[Message]) -> None:
        """Checks that every turn's text is in the prompt, as often as in the conversation."""
        contents = [turn.content.strip() for turn in messages]
        if len(set(contents)) == len(contents) and all(map(text.__contains__, contents)):  # most conversations
            return
        for content, times in Counter(contents).items():
            places = [place for place, turn in enumerate(messages) if turn.content.strip() == content]
            if content and content not in text and json.dumps(content, ensure_ascii=False)[1:-1] not in text:
                lost = places[0]
            elif times > 1 and len(content) > _LEAST_COUNTED and text.count(content) < times:
                lost = places[-1]
            else:
                continue
            where, role = self._template.where, messages[lost].role
            raise InputError(
                f"the chat template of {where} leaves out or changes turn {lost} ({role})",
                "Use a base model whose template supports such turns",
            )

    def _check_tools(self, text: str, names: Sequence[str]) -> None:
        lost = next((name for name in names if name not in text), None)
        if lost is not None:
            raise InputError(
                f"the chat template of {self._template.where} leaves out the tool {lost!r}",
                "Use a base model whose template supports tools",
            )

    def _bare_prompt(self) -> str:
        return self._template.render([{"role": "user", "content": "a"}], add_generation_prompt=True)

    def _check_terminator(self) -> None:
        # The template must end an assistant turn with the token at which the engine stops; otherwise the model would
        # learn to end with a token that does not stop it.
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        closed = self._template.render(turns, add_generation_prompt=False)
        if not closed.rstrip().endswith(self._terminator):
            raise InputError(
                f"the chat template of {self._template.where} ends a turn with {closed[-20:]!r}, not with the "
                f"terminator {self._terminator!r}",
                "Use a GGUF whose tokenizer.ggml.eos_token_id ends a chat turn",
            )


def _token_id(found: int | None, what: str, base: Base) -> int:
    if not isinstance(found, int):
        raise InputError(f"{base.path}: the header has no token for {what} (it is {found!r})", "Use another GGUF file")
    return found


def _named(row: Example) -> str:
    return f"{plain(row.id, 80)} ({plain(row.role, 80)})"


def _harmless(row: Example, control: ControlTokens) -> Example:
    """The row with texts that cannot contain a control token; roles stay, because templates depend on them."""

    def call(one: ToolCall) -> ToolCall:
        return ToolCall.model_construct(
            name=control.harmless(one.name), arguments=control.harmless(one.arguments), id=control.harmless(one.id)
        )

    messages = [
        Message.model_construct(
            role=turn.role, content=control.harmless(turn.content), tool_calls=list(map(call, turn.tool_calls)),
            tool_call_id=control.harmless(turn.tool_call_id), name=control.harmless(turn.name), extra={},
        )
        for turn in row.messages
    ]  # fmt: skip
    changed = {
        "messages": messages, "answer": control.harmless(row.answer), "tools": control.harmless(row.tools),
        "answer_calls": list(map(call, row.answer_calls)),
    }  # fmt: skip
    return row.model_copy(update=changed)
