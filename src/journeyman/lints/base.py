"""The base: whether other parts of the system mean the same model, and whether its chat template is its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from journeyman.foreign import plain
from journeyman.lints.contracts import Found
from journeyman.lints.facts import Facts
from journeyman.models.family_names import FamilyName, family_of_name
from journeyman.reasons.lints import OtherFamily, TemplateOfOtherFamily


def family_of(names: Sequence[str]) -> FamilyName | None:
    """The family that the first telling one of a base's names claims."""
    return next((family for name in names if (family := family_of_name(name)) is not None), None)


def other_families(facts: Facts) -> Iterator[Found]:
    """Models of another family that a setting or the logs name.

    An error if it is what is served or deployed: then one of the two is wrong. A teacher may be another model, which
    is said, because a team that runs an open model often means to tune that one.
    """
    family = family_of(facts.base.names)
    if family is None:
        return
    for model in facts.models:
        other = family_of_name(model.name)
        if other is not None and other.name != family.name:
            reason = OtherFamily(facts.base.names[0], family.name, model.where, plain(model.name, 80), other.name)
            yield Found(reason, is_error=not model.may_differ)


def chat_template(facts: Facts) -> Iterator[Found]:
    """A chosen template that is not the one that the base was trained with."""
    family, chosen = family_of(facts.base.names), facts.base.chat_template
    if family is not None and family.template and chosen and chosen != family.template:
        yield Found(TemplateOfOtherFamily(chosen, family.name, family.template))
