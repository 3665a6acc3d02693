"""From a client's request to the engine's: the trained system prompt, the redaction, and what the template supports."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from journeyman.config import PromptPolicy
from journeyman.foreign import plain
from journeyman.manifests import BundleManifest, RolePrompt
from journeyman.records import Message
from journeyman.redaction.redactor import Conversation, Redactor
from journeyman.serving.answering import Call
from journeyman.serving.bodies import parsed
from journeyman.serving.dialects.dialect import Dialect
from journeyman.serving.errors import RequestError
from journeyman.serving.forced_call import forced
from journeyman.serving.messages import SYSTEM
from journeyman.serving.observing import Record
from journeyman.serving.prompts import PromptCheck
from journeyman.serving.redacting import without_secrets, without_secrets_elsewhere
from journeyman.serving.requests import Asked

IGNORED_HEADER = "journeyman-ignored"
DIFFERS_HEADER = "journeyman-prompt-differs"
SYSTEM_PROMPT = "system_prompt"
"""The system prompt is not the one that the role was trained with, which replaces it."""
FRAME = "frame"
"""The system prompt does not begin and end as those of the training do."""
_MOST_IGNORED = 20
_TURN = re.compile(r"^messages\b(?:\[(\d+)\](?:\.content)?)?")


def conversation_of(bundle: BundleManifest) -> Conversation:
    """A new set of placeholders for the kinds of values that were redacted in the training data."""
    return Redactor(
        bundle.redact.get("secrets", False), bundle.redact.get("personal", False), _system_apart(bundle)
    ).conversation()


def _system_apart(bundle: BundleManifest) -> bool:
    """Whether its system prompts have placeholders with numbers of their own; bundles of older versions have none."""
    return bundle.redact.get("system_apart", False)


def prepared(
    bundle: BundleManifest,
    prompts: PromptCheck,
    dialect: Dialect,
    body: bytes,
    policy: PromptPolicy,
    record: Record,
) -> Call:
    """A request's bytes as the engine's request; what it is about is noted in `record`.

    Raises:
        RequestError: the request is invalid, or the template or the policy for prompts does not allow it.
    """
    asked = dialect.read(parsed(body), bundle.roles, bundle.settings["context"])
    differences = differences_of(bundle, asked.role, asked.messages)
    record.role, record.streamed, record.differences = asked.role, asked.streamed, differences
    try:
        if differences and policy == "refuse":
            raise RequestError(400, _differs(asked.role, differences), "messages", "prompt_differs")
        if FRAME in differences and policy == "replace":
            raise RequestError(400, _unfit(asked.role, bundle.prompts[asked.role]), "messages", "prompt_differs")
        prompts.refuse_control_tokens(asked.messages, asked.tools)
        seen = conversation_of(bundle)
        request = engine_request(bundle, asked, seen)
        prompts.refuse_lost(request["messages"], asked.tools)
    except RequestError as error:
        raise _in_clients_words(error, asked) from error
    headers = ignored_of(bundle, asked)
    if differences:
        headers[DIFFERS_HEADER] = ", ".join(differences)
    return Call(dialect, asked, request, seen, headers)


def differences_of(bundle: BundleManifest, role: str, messages: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """How a conversation differs from those that the role was trained on, as far as the bundle says what these have in
    common: SYSTEM_PROMPT or FRAME. A missing system prompt is no difference where the server adds the trained one."""
    contract = bundle.prompts.get(role)
    lead = messages[: _lead(messages)]
    if contract is not None and contract.kind != "fixed":
        fits = contract.fits(_joined(lead)) or contract.fits(_alone(bundle, lead)[0])
        return () if fits else (FRAME,)
    return () if not _joined(lead) or _is_trained(bundle, role, lead) else (SYSTEM_PROMPT,)


def served_messages(
    bundle: BundleManifest, role: str, messages: Sequence[dict[str, Any]], seen: Conversation
) -> list[dict[str, Any]]:
    """The conversation for the engine: with the role's trained system prompt, redacted as in training.

    If the role was trained with varying system prompts, the client's is kept. Ingest knows no developer: its turns are
    the system's.
    """
    messages = [{**turn, "role": "system"} if turn.get("role") in SYSTEM else turn for turn in messages]
    contract = bundle.prompts.get(role)
    if contract is not None and contract.kind != "fixed":
        return without_secrets(messages, seen)
    prompt = bundle.system_prompts.get(role)
    lead, rest = messages[: _lead(messages)], messages[_lead(messages) :]
    trained = bool(lead) and _is_trained(bundle, role, lead)
    if prompt is not None and not (trained and _system_apart(bundle)):
        seen.reserve(prompt)  # its placeholders stand for values that this request does not contain
    if not trained:
        turns = without_secrets(rest, seen)
    else:
        turns = without_secrets(messages, seen)[len(lead) :]
        seen.know(_alone(bundle, lead)[1])
    return turns if prompt is None else [Message(role="system", content=prompt).as_chat(), *turns]


def _lead(messages: Sequence[dict[str, Any]]) -> int:
    """How many turns come before the first one that is not the system's."""
    places = (place for place, turn in enumerate(messages) if turn.get("role") not in SYSTEM)
    return next(places, len(messages))


def _joined(lead: Sequence[Mapping[str, Any]]) -> str:
    return "\n\n".join(str(turn["content"]) for turn in lead)


def _alone(bundle: BundleManifest, lead: Sequence[Mapping[str, Any]]) -> tuple[str, Conversation]:
    """The leading system turns as one prompt, redacted like one of the training data, and the values in it."""
    seen = conversation_of(bundle)
    return _joined(without_secrets([{"role": "system", "content": turn["content"]} for turn in lead], seen)), seen


def _is_trained(bundle: BundleManifest, role: str, lead: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the leading system turns are the role's fixed prompt, as it was trained or before it was redacted."""
    prompt = bundle.system_prompts.get(role)
    return prompt is not None and (_joined(lead) == prompt or _alone(bundle, lead)[0] == prompt)


def _differs(role: str, differences: Sequence[str]) -> str:
    return (
        f"messages: the prompt differs from those that {role!r} was trained with ({', '.join(differences)}), and "
        'serve.prompts = "refuse"'
    )


def _unfit(role: str, contract: RolePrompt) -> str:
    return (
        f"messages: {role!r} was trained with system prompts that begin with {contract.begins[:80]!r} and end with "
        f"{contract.ends[-80:]!r}; send a system message of that form"
    )


def engine_request(bundle: BundleManifest, asked: Asked, seen: Conversation) -> dict[str, Any]:
    """The request for the engine; `seen` collects the values that are redacted in the client's."""
    request = dict(asked.options)
    request.setdefault("temperature", bundle.settings["temperature"])
    if "max_completion_tokens" not in request:
        request.setdefault("max_tokens", bundle.settings["max_new_tokens"])
    if asked.tools:
        request["tools"] = asked.tools
    if asked.must_call:
        request = forced(request)
    served = served_messages(bundle, asked.role, asked.messages, seen)
    return {**without_secrets_elsewhere(request, seen), "messages": served}


def ignored_of(bundle: BundleManifest, asked: Asked) -> dict[str, str]:
    """A header that lists everything in the request that has no effect, including replaced system prompts."""
    contract = bundle.prompts.get(asked.role)
    prompt = bundle.system_prompts.get(asked.role)
    replaced = contract is None or contract.kind == "fixed"
    lead = asked.messages[: _lead(asked.messages)]
    if not replaced or _is_trained(bundle, asked.role, lead):
        lead = []
    others = [asked.place(index) for index, turn in enumerate(lead) if turn["content"] != prompt]
    names = [*asked.ignored, *others[:10]]
    if len(names) > _MOST_IGNORED:
        names = [*names[:_MOST_IGNORED], f"and {len(names) - _MOST_IGNORED} more"]
    return {IGNORED_HEADER: ", ".join(map(_in_a_header, names))} if names else {}


def _in_a_header(name: str) -> str:
    return plain(name, 80).encode("ascii", "backslashreplace").decode()


def _in_clients_words(error: RequestError, asked: Asked) -> RequestError:
    """The error with the names that a turn has in the client's request."""

    def named(text: str) -> str:
        found = _TURN.match(text)
        if found is None or not asked.places:
            return text
        place = asked.place(int(found[1])) if found[1] else asked.turns
        return place + text[found.end() :]

    return RequestError(
        error.status, named(error.message), error.param and named(error.param), error.code, error.headers
    )
