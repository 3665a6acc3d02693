"""The state of every stage, as users look at it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from journeyman.api.html import table
from journeyman.stage_states import StageState, State


class Status(Mapping[str, State]):
    """Stage → fresh, stale, unfinished or missing, in order.

    Attributes:
        stages: stage → the same with the reasons.
    """

    def __init__(self, stages: Mapping[str, StageState]) -> None:
        self.stages = stages

    def __getitem__(self, stage: str) -> State:
        return self.stages[stage].state

    def __iter__(self) -> Iterator[str]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def lines(self) -> list[tuple[str, State, str]]:
        """(stage, state, when it was made and what has changed since)."""
        return [(one.stage, one.state, _note(one)) for one in self.stages.values()]

    def _repr_html_(self) -> str:
        return table(("stage", "state", "made"), self.lines())

    def __repr__(self) -> str:
        return "\n".join(f"{stage:<9} {state:<10} {note}".rstrip() for stage, state, note in self.lines())


def _note(one: StageState) -> str:
    changed = f"changed: {', '.join(one.changed)}" if one.changed else ""
    return "; ".join(filter(None, (one.created, changed)))
