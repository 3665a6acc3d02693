"""Messages → token ids and loss mask, in the same way for train, evaluate and serve.

A rendered example is the prompt (everything up to and including the assistant's header), then the answer, then the
terminator. Only the answer and its terminator carry loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.base import Base, Vocabulary
from journeyman.records import Example, Message, ToolCall, tool_name
from journeyman.rendering.answers import Answer, AnswerWriter
from journeyman.rendering.control import ControlTokens
from journeyman.rendering.endings import end_tokens
from journeyman.rendering.losses import lost_tool, lost_turn
from journeyman.rendering.runs import RunLimit
from journeyman.rendering.settling import Settled
from journeyman.rendering.template import ChatTemplate, template_of
from journeyman.rendering.tokenizer import tokenizer_of

Tools = Sequence[dict[str, Any]]


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

    def __init__(self, base: Base | Vocabulary) -> None:
        data = base.tokenizer
        self._template: ChatTemplate = template_of(data, str(base.path))
        self._tokenizer = tokenizer_of(data, str(base.path))
        ends = end_tokens(data)
        if not isinstance(data.end_id, int):
            raise _no_token(data.end_id, "the end of an answer", base)
        if data.adds_begin and not isinstance(data.begin_id, int):
            raise _no_token(data.begin_id, "the beginning of a text", base)
        self._bos = [data.begin_id] if data.adds_begin and data.begin_id is not None else []
        self.control = ControlTokens(data, self._template)
        control = set(self.control.texts)
        self._control_ids = {number for number, token in enumerate(data.tokens or ()) if token in control}
        self._bos_text = self.decode(self._bos)
        self._last: tuple[list[Message], Tools, str] = [], [], ""
        self._writer = AnswerWriter(self._template, list(ends))
        self._end_ids = ends
        self.terminator_id = ends[self._writer.end]
        self._run_limit = RunLimit(data)
        self._answers_continue = not self._tokenizer.specials.ends_with_one(self._bare_prompt())

    @property
    def end_ids(self) -> list[int]:
        """The tokens at which the engine stops; `terminator_id`, which ends a plain answer, is one of them."""
        return list(self._end_ids.values())

    @property
    def served_template(self) -> Settled:
        """The chat template, with everything that an engine must be given to make the same prompts."""
        return self._template.served

    def prompt_text(self, messages: Sequence[Message], tools: Tools = ()) -> str:
        """The prompt as text, up to and including the assistant's header.

        Raises:
            InputError: the template refuses the conversation, or leaves out a turn, tools or tool calls.
        """
        turns, offered, text = self._last
        if offered is tools and len(turns) == len(messages) and all(map(is_, turns, messages)):
            return text  # asked for once for the prompt, and again for what follows it
        text = self._template.render([m.as_chat() for m in messages], add_generation_prompt=True, tools=tools)
        self._check_turns(text, messages)
        named = [tool_name(tool) for tool in tools] + [call.name for turn in messages for call in turn.tool_calls]
        self._check_tools(text, named)
        if length := self._run_limit.exceeded_by(text):
            raise InputError(f"{length:,} characters in a row are one piece of text, on which the engine crashes")
        self._last = list(messages), tools, text
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
        """What the assistant writes between header and terminator: see answers.AnswerWriter.

        Raises:
            InputError: the template refuses the conversation, does not support tool calls, or changes the answer.
        """
        return self._answer(messages, answer, calls, tools).text

    def example(self, row: Example) -> Rendered:
        """Renders prompt, answer and (unless the answer is cut off) terminator, with the loss mask.

        Raises:
            InputError: the template refuses the row, or the row contains a control token that the template did not add.
        """
        self._refuse_control_tokens(row)
        prompt = self.prompt_ids(row.messages, row.tools)
        text, end_text = self._answer(row.messages, row.answer, row.answer_calls, row.tools)
        answer = self.encode(text)
        end = [self._end_ids[end_text]] if row.ends else []
        self._prove_control_tokens(row, [*prompt, *answer])
        return Rendered(ids=[*prompt, *answer, *end], prompt_tokens=len(prompt), ends=row.ends, weight=row.weight)

    def count(self, text: str) -> int:
        """`len(encode(text))`, several times faster."""
        return self._tokenizer.count(text, self._answers_continue)

    def count_repeated(self, text: str) -> int:
        """`count` for texts that come again and again, such as system prompts."""
        return self._tokenizer.count_repeated(text, self._answers_continue)

    def opens_reasoning(self) -> bool:
        """Whether prompts end within a block of reasoning that the template has opened."""
        return self._writer.opens_reasoning(self.prompt_text([Message(role="user", content="\x02")]))

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

    def _answer(self, messages: Sequence[Message], answer: str, calls: Sequence[ToolCall], tools: Tools) -> Answer:
        if not calls and self._writer.same_before_all is not None:
            return Answer(self._writer.same_before_all + answer, self._writer.end)
        return self._writer.write(self.prompt_text(messages, tools), messages, answer, calls, tools)

    def _check_turns(self, text: str, messages: Sequence[Message]) -> None:
        """Checks that every turn's text is in the prompt, as often as in the conversation."""
        lost = lost_turn(text, [(turn.role, turn.content) for turn in messages], self._template.served.source)
        if lost is not None:
            where, role = self._template.where, messages[lost].role
            raise InputError(
                f"the chat template of {where} leaves out or changes turn {lost} ({role})",
                "Use a base model whose template supports such turns, or set base.chat_template",
            )

    def _check_tools(self, text: str, names: Sequence[str]) -> None:
        if (lost := lost_tool(text, names)) is not None:
            raise InputError(
                f"the chat template of {self._template.where} leaves out the tool {lost!r}",
                "Use a base model whose template supports tools",
            )

    def _bare_prompt(self) -> str:
        return self._template.render([{"role": "user", "content": "a"}], add_generation_prompt=True)


def _no_token(found: int | None, what: str, base: Base | Vocabulary) -> InputError:
    return InputError(f"{base.path}: the header has no token for {what} (it is {found!r})", "Use another GGUF file")


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
