"""Which tools an answer may or must call, in the form that the engine knows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from journeyman.foreign import plain
from journeyman.serving.errors import RequestError

Mode = Literal["auto", "none", "required"]


@dataclass(frozen=True)
class ToolChoice:
    """Attributes:
    names: the only tools that may be called; None: all.
    """

    mode: Mode
    names: Collection[str] | None = None


def apply_choice(
    choice: ToolChoice, tools: Sequence[dict[str, Any]], param: str, ignored: list[str]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The tools that the model sees, and the engine's options.

    The model is shown only the tools that it may call, and `ignored` says that the others had no effect.

    Raises:
        RequestError: a tool that does not exist, or no tools at all.
    """
    if not tools:
        raise RequestError(400, f"{param} needs tools", param)
    if choice.names is None:
        return list(tools), {"tool_choice": choice.mode}
    defined = {tool["function"]["name"] for tool in tools}
    for name in choice.names:
        if name not in defined:
            raise RequestError(400, f"{param}: there is no tool {plain(name, 80)!r}", param)
    shown = [tool for tool in tools if tool["function"]["name"] in choice.names]
    if len(shown) < len(tools):
        ignored.append("tools that tool_choice excludes")
    return shown, {"tool_choice": choice.mode}


def openai_choice(value: Any, param: str, *, flat: bool) -> ToolChoice:
    """Reads OpenAI's `tool_choice`.

    Args:
        flat: whether a tool's name stands in the object itself (Responses) or in its `function` (chat completions).

    Raises:
        RequestError: not one of its forms.
    """
    if isinstance(value, str) and value in ("auto", "none", "required"):
        return ToolChoice(value)  # type: ignore[arg-type]
    if isinstance(value, dict) and value.get("type") == "function":
        return ToolChoice("required", (_name(value, param, flat),))
    if isinstance(value, dict) and value.get("type") == "allowed_tools":
        inner = value if flat else value.get("allowed_tools")
        if isinstance(inner, dict) and inner.get("tools") == []:
            raise RequestError(400, f"{param}.tools must name at least one tool; use none for no calls", param)
        if (
            isinstance(inner, dict)
            and inner.get("mode") in ("auto", "required")
            and isinstance(inner.get("tools"), list)
        ):
            return ToolChoice(inner["mode"], [_name(tool, f"{param}.tools", flat) for tool in inner["tools"]])
    raise RequestError(400, f"{param} must be auto, none, required, a function or allowed_tools", param)


def _name(value: Any, param: str, flat: bool) -> str:
    holder = value if flat else value.get("function") if isinstance(value, Mapping) else None
    name = holder.get("name") if isinstance(holder, Mapping) else None
    if not isinstance(name, str):
        raise RequestError(400, f"{param} does not name a function", param)
    return name
