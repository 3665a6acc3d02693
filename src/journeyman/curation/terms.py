"""Teacher terms: whose answers may train a model, by the patterns in [curate.teacher_terms].

journeyman knows no provider's terms. It applies what the user has found out, to every row, and records it.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from journeyman.config import TeacherTermsConfig
from journeyman.errors import InputError
from journeyman.foreign import named
from journeyman.manifests import TermsName, TermsOfTeacher


def terms_of(teacher: str, config: TeacherTermsConfig) -> TermsName:
    """What the patterns say about a teacher, `provider/model`; a denial prevails.

    A pattern is compared with the whole name and with each part of it between slashes, ignoring case: `acme` means
    every model of acme, also where a gateway names it as gateway/acme/model. White space around them does not count.
    """
    names = _names(teacher)

    def listed(patterns: list[str]) -> bool:
        return any(_names_one(pattern, names) for pattern in patterns)

    return "deny" if listed(config.deny) else "allow" if listed(config.allow) else "unknown"


def denied_in_vain(teachers: list[str], config: TeacherTermsConfig) -> list[str]:
    """The patterns of `deny` that name none of the teachers: perhaps they are misspelt."""
    names = [name for teacher in teachers for name in _names(teacher)]
    return [pattern for pattern in config.deny if not _names_one(pattern, names)]


def _names(teacher: str) -> list[str]:
    """Everything that a pattern is compared with."""
    parts = [part.strip() for part in teacher.casefold().split("/")]
    count = len(parts)
    return ["/".join(parts[a:b]) for a in range(count) for b in range(a + 1, count + 1)]


def _names_one(pattern: str, names: list[str]) -> bool:
    return any(fnmatchcase(name, pattern.strip().casefold()) for name in names)


def refuse_unknown(teachers: list[str], codes: NDArray[np.integer], config: TeacherTermsConfig) -> None:
    """With unknown = 'refuse': refuses a log with answers of teachers that no pattern names.

    Args:
        codes: the teacher of each row that no rule has dropped, as a place in `teachers`.

    Raises:
        InputError: there are such rows.
    """
    if config.unknown != "refuse":
        return
    counts = np.bincount(codes, minlength=len(teachers)).tolist()
    unknown = {name: n for name, n in zip(teachers, counts, strict=True) if n and terms_of(name, config) == "unknown"}
    if unknown:
        shown = ", ".join(f"{named(name)} ({n} rows)" for name, n in unknown.items())
        raise InputError(
            f"curate.teacher_terms.unknown = 'refuse': no pattern names these teachers: {shown}",
            "Add each to curate.teacher_terms.allow or deny, as its terms of use say",
        )


def terms_of_all(
    teachers: list[str], kept: NDArray[np.integer], config: TeacherTermsConfig
) -> Mapping[str, TermsOfTeacher]:
    """Teacher → its terms and its rows in the dataset; `kept`: the teacher of each of these rows."""
    counts = np.bincount(kept, minlength=len(teachers)).tolist()
    return {
        name: TermsOfTeacher(terms=terms_of(name, config), rows=n) for name, n in zip(teachers, counts, strict=True)
    }
