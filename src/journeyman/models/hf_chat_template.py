"""Finds the chat template in a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from journeyman.errors import InputError

_MOST_BYTES = 1 << 22
_DEFAULT, _FOR_TOOLS = "default", "tool_use"


def chat_template_of(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The template in `chat_template.jinja` or tokenizer_config.json; of several named ones, the default.

    transformers and vLLM read the former first, llama.cpp's converter the latter, so they must not differ.

    Args:
        settings: tokenizer_config.json.

    Raises:
        InputError: the two differ, or the file is no text.
    """
    inside = settings.get("chat_template")
    if isinstance(inside, list):
        inside = _named(inside).get(_DEFAULT)
    inside = inside if isinstance(inside, str) else None
    path = folder / "chat_template.jinja"
    if not path.is_file():
        return inside
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        own = path.read_text(encoding="utf-8")
    except ValueError as error:
        raise InputError(f"{path}: not a chat template: {error}", "Download the file again") from error
    if inside is not None and inside.strip() != own.strip():
        raise InputError(
            f"{folder}: chat_template.jinja and the chat_template in tokenizer_config.json differ, and engines read "
            "one or the other",
            "Delete the one that the model was not trained with",
        )
    return own


def tool_template_of(settings: Mapping[str, Any]) -> str | None:
    """The template in tokenizer_config.json for conversations with tools; None if they have no other one."""
    inside = settings.get("chat_template")
    found = _named(inside).get(_FOR_TOOLS) if isinstance(inside, list) else None
    return found if isinstance(found, str) else None


def _named(templates: list[Any]) -> dict[Any, Any]:
    return {one.get("name"): one.get("template") for one in templates if isinstance(one, dict)}
