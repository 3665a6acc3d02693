"""What the student's answers would have cost. An unknown price gives no figure: neither zero nor a guess."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from journeyman.config import ModelPrice
from journeyman.monitoring.report import Saved
from journeyman.monitoring.traffic import RoleTraffic
from journeyman.reasons.base import Reason
from journeyman.reasons.monitoring import NoPrice, TeacherNotKnown, TokensNotKnown

_MILLION = 1_000_000


def saved_by(role: RoleTraffic, teacher: str, prices: Mapping[str, ModelPrice]) -> tuple[Saved | None, Reason | None]:
    """What was saved, or why that is not known; neither if the student has answered nothing.

    Args:
        teacher: monitor.teachers of the role; "": the model that answered most.
        prices: monitor.prices.
    """
    student = role.student
    if not student.requests:
        return None, None
    model = teacher or next((name for name, _ in role.models.most_common(1)), "")
    if not model:
        return None, TeacherNotKnown()
    price = price_of(model, prices)
    if price is None:
        return None, NoPrice(model)
    if not student.counted:
        return None, TokensNotKnown(student.requests)
    dollars = (student.prompt_tokens * price.prompt + student.answer_tokens * price.answer) / _MILLION
    return Saved(dollars=dollars, model=model, requests=student.counted, of=student.requests), None


def price_of(model: str, prices: Mapping[str, ModelPrice]) -> ModelPrice | None:
    """The price of the first pattern that matches."""
    return next((price for pattern, price in prices.items() if fnmatchcase(model, pattern)), None)
