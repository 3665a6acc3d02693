"""What is tried and what it came to, in lines for a person."""

from __future__ import annotations

from journeyman.foreign import named
from journeyman.iterating.changes import Change, Settings
from journeyman.iterating.ledger import Looked, Tried
from journeyman.iterating.protocol import Estimate


def told_before(change: Change, estimate: Estimate) -> str:
    """What is tried, why, and how long it will take."""
    unknown = "" if estimate.answers_known else ", without the answers, whose time is not known"
    return (
        f"trying {settings_text(change.settings)} because of {named(change.role)}: {change.reason.sentence()}. About "
        f"{estimate.trial_s:,.0f} s on the validation rows; if it is better there, about {estimate.look_s:,.0f} s to "
        f"make the run anew and look at the held-out rows{unknown}"
    )


def told_after(entry: Tried) -> str:
    """What the validation rows showed."""
    if entry.outcome == "diverged":
        return "the training diverged: not better"
    if entry.outcome == "does_not_fit":
        return "it does not fit in memory: not tried"
    loss = ""
    if entry.loss is not None and entry.loss_before is not None:
        loss = f"; validation loss {entry.loss_before:.4f} → {entry.loss:.4f}"
    verdict = "better" if entry.outcome == "better" else "not better"
    verdict += f", because {', '.join(map(named, entry.worse))} lost too many" if entry.worse else ""
    return (
        f"{entry.before} → {entry.passed} of {entry.rows} validation rows pass ({entry.wins} won, {entry.losses} lost"
        f"{loss}): {verdict}"
    )


def told_of_look(entry: Looked) -> str:
    """What the held-out rows showed."""
    if entry.verdict is None:
        return f"the plan refuses these settings: {entry.why}"
    seen = "no row could be scored" if entry.passed is None else f"{entry.passed} of {entry.rows} held-out rows pass"
    return f"look {entry.look} at the held-out rows: {seen}; verdict {entry.verdict}"


def settings_text(settings: Settings) -> str:
    """Settings in one line."""
    return ", ".join(f"{key} = {value}" for key, value in settings.items()) or "no change"
