"""Messages → token ids and loss mask: one truth for train, evaluate and serve.

A rendered example is the prompt (everything up to and including the assistant's header), then the
answer, then the terminator. The loss falls on the answer and its terminator, on nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from journeyman.errors import InputError
from journeyman.models.gguf_file import GgufFile
from journeyman.records import Message
from journeyman.rendering.template import ChatTemplate
from journeyman.rendering.counting import TokenCounter
from journeyman.rendering.tokenizer import special_tokens, tokenizer_of


@dataclass(frozen=True)
class Rendered:
    """Token ids of one example; `ids[prompt_tokens:]` are trained, the last of them is the terminator."""

    ids: list[int]
    prompt_tokens: int

    @property
    def trained_tokens(self) -> int:
        return len(self.ids) - self.prompt_tokens


class Renderer:
    """Renders with the tokenizer and the chat template of one base model.

    Raises:
        InputError: the base has no chat template, or a tokenizer that is not supported.
    """

    def __init__(self, base: GgufFile) -> None:
        metadata = base.metadata
        source = metadata.get("tokenizer.chat_template")
        if not isinstance(source, str):
            raise InputError(f"{base.path}: the model has no chat template", "Use an instruct (chat) model as base")
        self._tokenizer = tokenizer_of(metadata, str(base.path))
        try:
            tokens = metadata["tokenizer.ggml.tokens"]
            names = {"bos_token": "tokenizer.ggml.bos_token_id", "eos_token": "tokenizer.ggml.eos_token_id"}
            special = {name: tokens[metadata[key]] for name, key in names.items() if key in metadata}
            self.terminator_id = int(metadata["tokenizer.ggml.eos_token_id"])
            bos = [int(metadata["tokenizer.ggml.bos_token_id"])] if metadata.get("tokenizer.ggml.add_bos_token") else []
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InputError(
                f"{base.path}: the header's special tokens are damaged: {error!r}", "Use another GGUF"
            ) from error
        self._bos = bos
        self.control_tokens = [token for token in special_tokens(metadata) if token.strip()]
        pre = metadata.get("tokenizer.ggml.pre", "gpt-2")
        self._counter = TokenCounter(self._tokenizer, pre, special_tokens(metadata))
        self._template = ChatTemplate(source, special, str(base.path))
        self._check_terminator()

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The prompt as text, up to and including the assistant's header."""
        return self._template.render([m.as_chat() for m in messages], add_generation_prompt=True)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The prompt as token ids: what is trained on, asked in evaluation, and served."""
        ids = self.encode(self.prompt_text(messages))
        return ids if self._bos and ids[:1] == self._bos else self._bos + ids

    def example(self, messages: Sequence[Message], answer: str) -> Rendered:
        """Prompt, answer and terminator as token ids with the boundary of the loss."""
        prompt = self.prompt_ids(messages)
        return Rendered(ids=[*prompt, *self.encode(answer), self.terminator_id], prompt_tokens=len(prompt))

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def _check_terminator(self) -> None:
        # The template must end an assistant turn with the token at which the runtime stops; were it
        # another, the model would learn to end with one and be stopped by the other.
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        closed = self._template.render(turns, add_generation_prompt=False)
        terminator = self.decode([self.terminator_id])
        if not closed.rstrip().endswith(terminator):
            raise InputError(
                f"the chat template ends a turn with {closed[-20:]!r}, not with the terminator {terminator!r}",
                "Use a GGUF whose tokenizer.ggml.eos_token_id ends a chat turn",
            )
