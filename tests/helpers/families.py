"""Short chat templates that behave as those of published models do (chat_templates/*.jinja), with their tokens."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from conftest import write_tiny_gguf


class Family(NamedTuple):
    """A family of models, as far as its chat template matters.

    Attributes:
        special: control tokens of its vocabulary; the last one is its end of text.
        begin: the token that begins every text; None if there is none.
        end: the token that ends an answer.
        takes: the names of the conversations that its template takes.
    """

    special: tuple[str, ...]
    begin: str | None
    end: str
    takes: tuple[str, ...]


_PLAIN = ("plain", "system", "dialogue", "reasoning")
_EVERYTHING = (*_PLAIN, "tools", "calls")
_IM = ("<|im_start|>", "<|im_end|>")
_BAR = "\uff5c"
_EOS = f"<{_BAR}end\u2581of\u2581sentence{_BAR}>"
FAMILIES = {
    # Reasoning in history is cut from answers before the last question; the last answer always shows a block.
    "qwen3": Family(_IM, None, "<|im_end|>", _EVERYTHING),
    # The same, but the prompt has opened the reasoning.
    "qwq": Family(_IM, None, "<|im_end|>", _EVERYTHING),
    "deepseek": Family(
        (f"<{_BAR}begin\u2581of\u2581sentence{_BAR}>", f"<{_BAR}User{_BAR}>", f"<{_BAR}Assistant{_BAR}>", _EOS),
        f"<{_BAR}begin\u2581of\u2581sentence{_BAR}>", _EOS, _PLAIN,
    ),
    # Today's date, a switch in the system prompt, and {% generation %}.
    "smollm3": Family(_IM, None, "<|im_end|>", _PLAIN),
    # Today's date with a default; contents are trimmed; an answer with a call has no text.
    "llama-3.1": Family(
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|begin_of_text|>", "<|eot_id|>", _EVERYTHING,
    ),
    # The system prompt is in the last user turn, so a turn reads differently later.
    "mistral": Family(
        ("<s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "</s>"),
        "<s>", "</s>", (*_PLAIN, "tools"),
    ),
    # The system prompt begins the first user turn; turns alternate; a turn does not end with the end of text.
    "gemma": Family(("<bos>", "<start_of_turn>", "<end_of_turn>", "<eos>"), "<bos>", "<end_of_turn>", _PLAIN),
    # After the end of the last turn, it writes the end of text as well.
    "phi-4-mini": Family(
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"), None, "<|end|>", _PLAIN
    ),
    # Today's date, an option that is off by default, and documents, which are absent.
    "granite-3": Family(
        ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"), None, "<|end_of_text|>", _PLAIN
    ),
    # Channels: an answer is in the final one, a call in the commentary, and each ends with a token of its own.
    "harmony": Family(
        ("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|call|>", "<|return|>"),
        None, "<|return|>", _EVERYTHING,
    ),
}  # fmt: skip


def source_of(family: str) -> str:
    """The chat template of a family."""
    return (Path(__file__).parent / "chat_templates" / f"{family}.jinja").read_text(encoding="utf-8")


def write_family(path: Path, family: str, template: str | None = None) -> Path:
    """A tiny model with the tokens and the chat template of a family, or with another template."""
    known = FAMILIES[family]
    source = source_of(family) if template is None else template
    return write_tiny_gguf(
        path, template=source or None, special=known.special, end=known.special[-1], begin=known.begin, context=2048
    )
