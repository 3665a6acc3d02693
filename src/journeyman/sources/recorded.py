"""Rows of `journeyman record`: an exchange with a teacher's API, its role, conversation and outcome.

Request and response are in the form of chat completions, Responses or Anthropic's Messages, and are read as such; the
recorder has joined streamed answers. Answers of a student beside the teacher are rejected. An exchange that is not
complete has no answer to learn from: what came of it is kept in `extra`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import sources as why
from journeyman.records import Interaction
from journeyman.sources import anthropic, openai_chat
from journeyman.sources.fields import NotAnInteraction, first, mapping, number, text_or_none, without
from journeyman.sources.place import Place

VERSION = 1
COMPLETE = "complete"
_DISLIKED = "the feedback about it was bad"
_READ = (
    "recorded", "seq", "assigned", "time", "role", "conversation", "provider", "model", "request", "response",
    "duration_ms", "status", "errors", "outcome", "why",
)  # fmt: skip


def claims(row: Mapping[str, Any]) -> bool:
    return "recorded" in row and "seq" in row and "outcome" in row


def interactions(row: Mapping[str, Any], place: Place) -> Iterator[Interaction | NotAnInteraction]:
    if row.get("recorded") != VERSION:
        raise NotAnInteraction(why.UnknownType("the row is of version", plain(str(row.get("recorded")), 20)))
    route = mapping(row.get("route"))
    if row.get("of") or (route.get("arm") == "student" and not route.get("fallback")):
        raise NotAnInteraction(why.AnsweredByStudent())
    if row.get("lost"):
        raise NotAnInteraction(why.NotLogged("the contents were not recorded", plain(str(row.get("why")), 80)))
    request, response = mapping(row.get("request")), mapping(row.get("response"))
    if "messages" not in request and "input" not in request:
        called = f"{plain(str(row.get('method')), 10)} {plain(str(row.get('path')), 80)}"
        raise NotAnInteraction(why.NotAModelCall("a request", called))
    outcome, status = row.get("outcome"), row.get("status")
    complete = outcome == COMPLETE
    answered = response if _is_answer(response) else {"error": response.get("error") or _failure(row)}
    if complete and answered is not response and isinstance(status, int) and status < 400:
        raise NotAnInteraction(why.NotAModelCall("a request", plain(str(row.get("path")), 80)))
    score = number(row.get("feedback"))
    disliked = score is not None and score < 0.5
    failed = not complete or answered is not response
    pair = {
        "id": f"recorded-{row.get('seq')}",
        "request": request,
        "response": answered,
        "status": None if failed else status,
        "errors": row.get("errors") or ([_failure(row)] if failed else [_DISLIKED] if disliked else None),
        "timestamp": row.get("time"),
        "duration_ms": number(row.get("duration_ms")),
        "provider": text_or_none(row.get("provider")),
    }
    dialect = anthropic if _is_anthropic(row, request, response) else openai_chat
    for one in dialect.interactions(pair, place):
        changes: dict[str, Any] = {
            "role": text_or_none(row.get("role")) or one.role,
            "session": text_or_none(row.get("conversation")) or one.session,
            "model": first(one.model, text_or_none(row.get("model"))),
            "extra": {**one.extra, **without(row, *_READ), "outcome": outcome},
        }
        if disliked:
            changes["succeeded"] = False
        if failed:
            part = {"output": one.output, "calls": [call.model_dump() for call in one.output_calls]}
            changes |= {"output": None, "output_calls": [], "reasoning": None, "succeeded": False}
            changes["extra"] |= {"partial": without(part)} if without(part) else {}
        yield one.model_copy(update=changes)


def _is_answer(response: Mapping[str, Any]) -> bool:
    return any(isinstance(response.get(name), list) for name in ("choices", "content", "output"))


def _is_anthropic(row: Mapping[str, Any], request: Mapping[str, Any], response: Mapping[str, Any]) -> bool:
    if response.get("type") in ("message", "error"):
        return True
    return "choices" not in response and "messages" in request and "/messages" in str(row.get("path"))


def _failure(row: Mapping[str, Any]) -> str:
    complete = row.get("outcome") == COMPLETE
    return f"status {plain(str(row.get('status')), 20)}" if complete else plain(str(row.get("outcome")), 40)
