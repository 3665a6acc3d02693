"""Why a canary is promoted, goes on or is rolled back."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.reasons.base import Reason

# --- rates and differences are from 0 to 1; evidence is the capital of a bet, which reaches `needed` by chance with
# --- probability 1 / needed at most


@dataclass(frozen=True)
class StudentNotWorse(Reason, code="student_not_worse"):
    difference: float
    margin: float
    evidence: float
    needed: float

    def sentence(self) -> str:
        return (
            f"the student fails {_points(self.difference)} than the teacher, and it is shown that it is not "
            f"{self.margin * 100:g} points more"
        )


@dataclass(frozen=True)
class StudentWorse(Reason, code="student_worse"):
    difference: float
    margin: float
    evidence: float
    needed: float

    def sentence(self) -> str:
        return (
            f"the student fails {_points(self.difference)} than the teacher, and it is shown that it is more than "
            f"{self.margin * 100:g}"
        )


@dataclass(frozen=True)
class StudentBecameWorse(Reason, code="student_became_worse"):
    """`difference` is that of the newer part."""

    difference: float
    margin: float
    evidence: float
    needed: float

    def sentence(self) -> str:
        return (
            f"the student became worse: lately it fails {_points(self.difference)} than the teacher, and it is shown "
            f"that for a while it was more than {self.margin * 100:g}"
        )


@dataclass(frozen=True)
class FewConversations(Reason, code="few_conversations"):
    says = "{seen} conversations of the student have a result, {least} are required"
    seen: int
    least: int


@dataclass(frozen=True)
class OnlyErrors(Reason, code="only_errors"):
    says = (
        "the student makes no more errors than the teacher, but a check, feedback or a credit rule says of {judged} "
        "conversations only whether the answers were right; {least} are required"
    )
    judged: int
    least: int


@dataclass(frozen=True)
class NothingShown(Reason, code="nothing_shown"):
    says = "nothing is shown yet: evidence that the student is good enough is {evidence:.3g}, {needed:g} is required"
    evidence: float
    needed: float


@dataclass(frozen=True)
class NewerHalfWorse(Reason, code="newer_half_worse"):
    difference: float
    margin: float

    def sentence(self) -> str:
        return (
            f"in all it is shown that the student is good enough, but lately it fails {_points(self.difference)} "
            f"than the teacher, {self.margin * 100:g} are allowed"
        )


@dataclass(frozen=True)
class UnscoredUnequally(Reason, code="unscored_unequally"):
    says = (
        "results are missing for {student} conversations of the student and {teacher} of the teacher, which is more "
        "than chance: those that are left can't be compared"
    )
    student: int
    teacher: int


@dataclass(frozen=True)
class StudentDecayed(Reason, code="student_decayed"):
    says = "the student fails more often than the {most_failed:.1%} that were shown before its promotion"
    most_failed: float
    evidence: float
    needed: float


@dataclass(frozen=True)
class NoDecayShown(Reason, code="no_decay_shown"):
    says = "no decay: evidence that more than {most_failed:.1%} fail is {evidence:.3g}, {needed:g} would show it"
    most_failed: float
    evidence: float
    needed: float


def _points(difference: float) -> str:
    return f"{abs(difference) * 100:.1f} points {'more' if difference >= 0 else 'less'} often"
