"""Recognizes refusals: curate does not train on such answers, and the check `answered` fails them."""

from __future__ import annotations

import re
from typing import Literal, cast

Sign = Literal["opening", "refusal", "content_filter"]
"""How a refusal is recognized: by the answer's first words, or by one of REFUSING_REASONS."""
_REFUSAL = re.compile(
    r"(?i)^\W*(?:i['’]?m (?:really |very )?sorry,? (?:but )?(?:i )?(?:can(?:no|['’])t|am (?:not able|unable))"
    r"|sorry,? (?:but )?i can(?:no|['’])t|i can(?:no|['’])t (?:help|assist|do that|fulfil|comply|provide that)"
    r"|i(?:['’]m| am) (?:not able|unable) to (?:help|assist|comply|fulfil|provide)"
    r"|i (?:must|have to) (?:decline|refuse)|as an ai (?:language )?model,? i (?:can(?:no|['’])t|do not|don['’]t))"
)
_OPENING = 300
REFUSING_REASONS = ("refusal", "content_filter")
"""Finish reasons of answers that the provider or the model refused."""


def refusal(text: str, finish_reason: str | None) -> Sign | None:
    """How the answer is recognized as a refusal; None if it is not one."""
    if finish_reason in REFUSING_REASONS:
        return cast(Sign, finish_reason)
    return "opening" if _REFUSAL.match(text[:_OPENING]) else None
