"""What a lint is: a function of the facts that yields what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from journeyman.foreign import named
from journeyman.lints.facts import Facts
from journeyman.reasons import Reason


@dataclass(frozen=True)
class Found:
    """What a lint found. An error is something with which the run cannot give what its settings ask for."""

    reason: Reason
    is_error: bool = False


Lint = Callable[[Facts], Iterator[Found]]


def by_role(counts: Mapping[str, object]) -> str:
    """Roles with what was counted of each, for a sentence: `coder 12, tester 3`."""
    return ", ".join(f"{named(role)} {count}" for role, count in counts.items())
