"""The engine's answers as clients see them: with the role as the model's name, and nothing about this machine."""

from __future__ import annotations

from typing import Any

from journeyman.serving.errors import without_paths

_SHOWN = ("id", "object", "created", "choices", "usage", "timings")


def named(answer: dict[str, Any], role: str) -> dict[str, Any]:
    """An answer or a chunk of a stream with the role as its model; an error's message is kept without paths."""
    if "error" in answer:
        error = answer["error"] if isinstance(answer["error"], dict) else {}
        message = without_paths(str(error.get("message", "the engine failed")))
        return {"error": {"message": message, "type": "server_error", "param": None, "code": "engine_error"}}
    return {**{key: answer[key] for key in _SHOWN if key in answer}, "model": role, "system_fingerprint": None}
