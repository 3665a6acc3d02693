"""The rows of an evaluation, by their place in the files: test row, and each arm's answer and score."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from journeyman.artifacts import either
from journeyman.foreign import named
from journeyman.records import ARMS, BASE, Example, Prediction, Score
from journeyman.runs import PLACES, SEALED
from journeyman.ui.indexes import Kept
from journeyman.ui.row_files import RowFile, Search, all_open, json_at, row_at

OUTCOMES = ("pass", "fail", "unscored")
_NONE = 255
_BEGINNING = 200


def files_of(root: Path) -> list[RowFile]:
    """Test rows, answers and scores."""
    scores = either(root / PLACES["evaluate"].folder, "scores.jsonl", "verdicts.jsonl").name
    return [
        RowFile(root, "curate", SEALED),
        RowFile(root, "evaluate", "predictions.jsonl"),
        RowFile(root, "evaluate", scores),
    ]


class _Arm:
    """Where an arm's answers and scores are, by row; -1: there is none."""

    def __init__(self) -> None:
        self.prediction, self.score, self.outcome = array("q"), array("q"), bytearray()

    def grow(self, rows: int) -> None:
        missing = rows - len(self.outcome)
        if missing > 0:
            self.prediction.extend([-1] * missing)
            self.score.extend([-1] * missing)
            self.outcome.extend([_NONE] * missing)


class Answers:
    """The rows that were answered, in the order of the test set; those that are not in it (any more) come last.

    Attributes:
        arms: names of the arms.
        roles: names of the roles; rows name them by number.
        without_prompt: how many rows are not in the test set.
    """

    def __init__(self, files: Sequence[RowFile]) -> None:
        """Reads the files once; raises as RowFile.parsed does."""
        self._files = files
        self._test, self._role = array("q"), array("i")
        self._arms: dict[str, _Arm] = {}
        self._ids: list[str] = []
        places: dict[str, int] = {}
        role_numbers: dict[str, int] = {}

        def place_of(row: dict[str, Any], offset: int) -> int:
            place = places.get(row["id"])
            if place is None:
                place = places[row["id"]] = len(self._ids)
                self._ids.append(row["id"])
                self._test.append(offset)
                self._role.append(role_numbers.setdefault(row["role"], len(role_numbers)))
            return place

        tests, predictions, scores = files
        with all_open(files) as (test_file, prediction_file, score_file):
            for offset, row in tests.parsed(test_file):
                place_of(row, offset)
            self.without_prompt = -len(self._ids)
            for offset, row in predictions.parsed(prediction_file):
                place = place_of(row, -1)
                self._arm(row["arm"]).prediction[place] = offset
            for offset, row in scores.parsed(score_file):
                place, arm = place_of(row, -1), self._arm(row["arm"])
                arm.score[place], arm.outcome[place] = offset, OUTCOMES.index(row["outcome"])
        self.without_prompt += len(self._ids)
        for arm in self._arms.values():
            arm.grow(len(self._ids))
        known = {name: place for place, name in enumerate(ARMS)}
        self.arms = sorted(self._arms, key=lambda name: known.get(name, len(known)))
        self.roles = list(role_numbers)
        self._chosen: Kept[array[int]] = Kept(8)

    def _arm(self, name: str) -> _Arm:
        arm = self._arms.setdefault(name, _Arm())
        arm.grow(len(self._ids))
        return arm

    def __len__(self) -> int:
        return len(self._ids)

    def chosen(self, role: int | None, arm: int | None, outcome: str | None, text: str) -> array[int]:
        """The numbers of the rows that meet all conditions.

        Args:
            arm: its place in `arms`.
            outcome: of that arm: one of OUTCOMES, or won or lost against the base.
            text: contained in the prompt, an answer or a reason.
        """
        key = (role, arm, outcome, text)
        return self._chosen.get(key, 0, lambda: self._choose(role, arm, outcome, text))

    def _choose(self, role: int | None, arm: int | None, outcome: str | None, text: str) -> array[int]:
        numbers = array("i", (n for n in range(len(self)) if role is None or self._role[n] == role))
        if arm is not None and outcome is not None:
            name = self.arms[arm]
            numbers = array("i", (n for n in numbers if self._is(n, name, outcome)))
        if not text:
            return numbers
        search = Search(text)
        arms = list(self._arms.values()) if arm is None else [self._arms[self.arms[arm]]]
        with all_open(self._files) as files:
            return array("i", (n for n in numbers if self._contains(n, search, arms, files)))

    def _is(self, number: int, arm: str, outcome: str) -> bool:
        here = self._arms[arm].outcome[number]
        if outcome in OUTCOMES:
            return here == OUTCOMES.index(outcome)
        base = self._arms.get(BASE)
        there = _NONE if base is None else base.outcome[number]
        return (here, there) == ((0, 1) if outcome == "won" else (1, 0))

    def _contains(self, number: int, search: Search, arms: Sequence[_Arm], files: Sequence[BinaryIO]) -> bool:
        tests, predictions, scores = files
        wanted: list[tuple[BinaryIO, int, tuple[str, ...]]] = [(tests, self._test[number], ("id", "messages"))]
        for arm in arms:
            wanted.append((predictions, arm.prediction[number], ("id", "text", "calls")))
            wanted.append((scores, arm.score[number], ("reason", "check")))
        for file, offset, fields in wanted:
            if offset >= 0:
                file.seek(offset)
                if search.finds(file.readline(), fields):
                    return True
        return False

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """These rows in short: role, the task's beginning, and each arm's outcome."""
        with self._files[0].reading() as tests:
            return [self._short(number, tests) for number in numbers]

    def _short(self, number: int, tests: BinaryIO) -> dict[str, Any]:
        task = ""
        if self._test[number] >= 0:
            turns = json_at(tests, self._test[number]).get("messages") or [{}]
            task = str(turns[-1].get("content", ""))
        outcomes = {name: self._arms[name].outcome[number] for name in self.arms}
        return {
            "number": number, "id": self._ids[number], "role": named(self.roles[self._role[number]]),
            "task": task[:_BEGINNING],
            "outcomes": [None if one == _NONE else OUTCOMES[one] for one in outcomes.values()],
        }  # fmt: skip

    def id_of(self, number: int) -> str:
        """The id of a row."""
        return self._ids[number]

    def row(self, number: int) -> tuple[Example | None, dict[str, tuple[Prediction | None, Score | None]]]:
        """One row in full: the test row, and each arm's answer and score."""
        with all_open(self._files) as (tests, predictions, scores):
            at = self._test[number]
            example = None if at < 0 else row_at(tests, at, Example, self._files[0].path)
            found = {}
            for name in self.arms:
                arm = self._arms[name]
                answer, score = arm.prediction[number], arm.score[number]
                found[name] = (
                    None if answer < 0 else row_at(predictions, answer, Prediction, self._files[1].path),
                    None if score < 0 else row_at(scores, score, Score, self._files[2].path),
                )
        return example, found
