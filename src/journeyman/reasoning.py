"""Reasoning that a model writes along with its answer: one list of markers, for both answers and history.

Tags of DeepSeek, Qwen and others (<think>), of Anthropic-style prompts (<thinking>), of GRPO data sets (<reasoning>),
of Mistral ([THINK]) and of Kimi (◁think▷); the channels of OpenAI's harmony format (`analysis` and `commentary`
before `final`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_PAIRS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
)
_HARMONY = re.compile(
    r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)[^<]*<\|message\|>.*?"
    r"(?:<\|end\|>|<\|start\|>assistant(?=<\|channel\|>)|(?=<\|channel\|>final))",
    re.DOTALL,
)
_FINAL = re.compile(r"(?:<\|start\|>assistant)?<\|channel\|>final[^<]*<\|message\|>|<\|(?:return|end)\|>$")


def may_hold(text: str) -> bool:
    """False if the text cannot contain a marker: a quick test that rules out most texts."""
    return (
        "think" in text or "reasoning" in text or "thought" in text or "THINK" in text or "<|channel|>" in text
    )  # written out, because it runs on every text of every row


def markers(asked_for: Iterable[str] = ()) -> tuple[tuple[str, str], ...]:
    """The tags that mean reasoning here: one that the prompt itself asks for is part of the answer's format."""
    texts = tuple(asked_for)
    return tuple(pair for pair in _PAIRS if not any(pair[0] in text for text in texts))


def opens(text: str, pairs: Iterable[tuple[str, str]] = _PAIRS) -> bool:
    """Whether a block of reasoning begins in the text."""
    return any(start in text for start, _ in pairs) or "<|channel|>analysis" in text


def closes(text: str, pairs: Iterable[tuple[str, str]] = _PAIRS) -> bool:
    """Whether a block of reasoning ends in the text; some servers swallow the opening tag."""
    return any(end in text for _, end in pairs) or "<|channel|>final" in text


def unclosed(text: str, pairs: Iterable[tuple[str, str]] = _PAIRS) -> bool:
    """Whether the text ends within reasoning, so that there is no answer."""
    if "<|channel|>analysis" in text and text.rfind("<|channel|>analysis") > text.rfind("<|channel|>final"):
        return True
    return any(text.rfind(start) > text.rfind(end) for start, end in pairs)


def stripped(text: str, pairs: Iterable[tuple[str, str]] = _PAIRS) -> str:
    """The text without its closed blocks of reasoning."""
    if not may_hold(text):
        return text
    if "<|channel|>final" in text:
        text = _FINAL.sub("", _HARMONY.sub("", text)).strip()
    for start, end in pairs:
        if end not in text:
            continue
        text = re.sub(f"{re.escape(start)}.*?{re.escape(end)}\\s*", "", text, flags=re.DOTALL)
        # Text before a closing tag without an opening one is reasoning too.
        text = text.rsplit(end, 1)[-1].strip() if end in text else text.strip()
    return text
