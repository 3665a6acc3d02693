"""The parts of the engine's answers that dialects other than chat completions put into shapes of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from journeyman.serving.errors import BrokenStream

Kind = Literal["reasoning", "text", "call"]
REASONING: Kind = "reasoning"
TEXT: Kind = "text"
CALL: Kind = "call"


@dataclass(frozen=True)
class Piece:
    """A part of an answer; in a stream, a piece of one.

    Attributes:
        text: a piece of the reasoning, of the text, or of a call's arguments in JSON.
        number: of the call within the answer.
        call_id, name: of the call; empty in all pieces but its first.
        logprobs: of the tokens in a piece of text, if they were requested.
    """

    kind: Kind
    text: str
    number: int = 0
    call_id: str = ""
    name: str = ""
    logprobs: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Usage:
    """Token counts of an answer.

    Attributes:
        cached: how many tokens of the prompt the engine had already processed.
    """

    prompt: int
    answer: int
    cached: int


class PieceWriter:
    """What the writers of dialects with shapes of their own have in common: they open a stream, write its pieces, and
    remember how it ended."""

    def __init__(self) -> None:
        self.finish: Any = None
        self.usage: Usage | None = None
        self._calls: set[int] = set()

    def chunk(self, event: dict[str, Any]) -> Iterator[bytes]:
        yield from self.start()
        choice = choice_of(event)
        for piece in pieces_of(choice):
            yield from self.piece(piece)
        self.finish = choice.get("finish_reason") or self.finish
        self.usage = usage_of(event) or self.usage

    def start(self) -> Iterator[bytes]:
        """The events with which a stream begins, once."""
        raise NotImplementedError

    def piece(self, piece: Piece) -> Iterator[bytes]:
        raise NotImplementedError

    def begin_call(self, number: int) -> None:
        """Raises BrokenStream if the call has begun before: its pieces must follow one another."""
        if number in self._calls:
            raise BrokenStream("the engine mixed the pieces of several tool calls", "mixed_calls")
        self._calls.add(number)


def choice_of(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """The only choice of an answer or of a chunk; empty in a chunk with the usage alone."""
    choices = event.get("choices") or [{}]
    choice: Mapping[str, Any] = choices[0]
    return choice


def pieces_of(choice: Mapping[str, Any]) -> Iterator[Piece]:
    """The parts of a choice's `message` or `delta`, in the order in which models write them."""
    said = choice.get("message") or choice.get("delta") or {}
    if said.get("reasoning_content"):
        yield Piece(REASONING, said["reasoning_content"])
    if said.get("content"):
        logprobs = (choice.get("logprobs") or {}).get("content") or ()
        yield Piece(TEXT, said["content"], logprobs=tuple(logprobs))
    for place, call in enumerate(said.get("tool_calls") or []):
        function = call.get("function") or {}
        name, arguments = function.get("name") or "", function.get("arguments") or ""
        yield Piece(CALL, arguments, call.get("index", place), call.get("id") or "", name)


def usage_of(event: Mapping[str, Any]) -> Usage | None:
    """The token counts in an answer or a chunk; None if there are none."""
    usage = event.get("usage")
    if not usage:
        return None
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Usage(usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0, cached)
