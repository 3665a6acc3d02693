"""Which findings of curate are worth asking again: name of the kind → names of rules in ruleset.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from journeyman.errors import UsageError
from journeyman.foreign import plain

KINDS: Mapping[str, tuple[str, ...]] = {
    "cut": ("truncated",),
    "failed": ("failed",),
    "asks-back": ("asks_back",),
    "no-answer": ("empty", "unclosed_reasoning", "reasoning"),
    "refused": ("refused",),
    "mock": ("mock_provider",),
}
"""`reasoning` counts only if the answer consists of reasoning."""
DEFAULT = ("cut", "failed", "asks-back", "no-answer")
KIND_OF: Mapping[str, str] = {rule: kind for kind, rules in KINDS.items() for rule in rules}
"""Rule → its kind."""


def kinds_of(only: str | None) -> tuple[str, ...]:
    """The kinds in a list such as "cut,failed"; None: the default ones.

    Raises:
        UsageError: one of them is unknown, or there is none.
    """
    if only is None:
        return DEFAULT
    chosen: Sequence[str] = [name.strip().replace("_", "-") for name in only.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in KINDS]
    if unknown or not chosen:
        what = plain(unknown[0], 40) if unknown else ""
        raise UsageError(f"--only {what!r}: not a kind of row to ask again", f"Some of: {', '.join(KINDS)}")
    return tuple(dict.fromkeys(chosen))
