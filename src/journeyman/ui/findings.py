"""The rows that curate dropped or noted, by their place in the files."""

from __future__ import annotations

import io
import json
from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zstandard

from journeyman.errors import InputError
from journeyman.foreign import named
from journeyman.records import Finding, Interaction
from journeyman.runs import PLACES
from journeyman.ui.files import opened
from journeyman.ui.indexes import Kept
from journeyman.ui.row_files import RowFile, Search, all_open, row_at
from journeyman.zst import ZstdFile

ACTIONS = ("dropped", "mended", "noted")
_SEARCHED = ("id", "log_id", "source", "task", "answer", "reason")
INTERACTIONS = "interactions.jsonl.zst"
_FILES = ("dropped.jsonl", "noted.jsonl")


def files_of(root: Path) -> list[RowFile]:
    """The files with findings."""
    return [RowFile(root, "curate", name) for name in _FILES]


class Findings:
    """Where each finding is, its rule, role and action. Rules and roles are numbered in the order of their names."""

    def __init__(self, files: Sequence[RowFile]) -> None:
        """Reads the files once; raises as RowFile.parsed does."""
        self._files = files
        self._file, self._offset = bytearray(), array("q")
        rules, roles, actions = [], [], bytearray()
        with all_open(files) as open_files:
            for number, (one, file) in enumerate(zip(files, open_files, strict=True)):
                for offset, row in one.parsed(file):
                    self._file.append(number)
                    self._offset.append(offset)
                    rules.append(str(row["rule"]))
                    roles.append(str(row["role"]))
                    actions.append(ACTIONS.index(row["action"]))
        self.rules, self.roles = sorted(set(rules)), sorted(set(roles))
        rule_numbers = {name: place for place, name in enumerate(self.rules)}
        role_numbers = {name: place for place, name in enumerate(self.roles)}
        self._rule = array("i", [rule_numbers[name] for name in rules])
        self._role = array("i", [role_numbers[name] for name in roles])
        self._action = actions
        self._chosen: Kept[array[int]] = Kept(8)

    def counts(self) -> list[dict[str, Any]]:
        """Rows by rule, role and action."""
        counted = Counter(zip(self._rule, self._role, self._action, strict=True))
        return [
            {"rule": rule, "role": role, "action": ACTIONS[action], "rows": rows}
            for (rule, role, action), rows in sorted(counted.items())
        ]

    def chosen(self, rule: int | None, role: int | None, action: str | None, text: str) -> array[int]:
        """The numbers of the findings that meet all conditions."""
        return self._chosen.get((rule, role, action, text), 0, lambda: self._choose(rule, role, action, text))

    def _choose(self, rule: int | None, role: int | None, action: str | None, text: str) -> array[int]:
        wanted = None if action is None else ACTIONS.index(action)
        numbers = array(
            "i",
            (
                number
                for number in range(len(self._offset))
                if (rule is None or self._rule[number] == rule)
                and (role is None or self._role[number] == role)
                and (wanted is None or self._action[number] == wanted)
            ),
        )
        if not text:
            return numbers
        search, found = Search(text), array("i")
        with all_open(self._files) as files:
            for number in numbers:
                file = files[self._file[number]]
                file.seek(self._offset[number])
                if search.finds(file.readline(), _SEARCHED):
                    found.append(number)
        return found

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """These findings, as JSON."""
        with all_open(self._files) as files:
            return [self._row(number, files[self._file[number]]) for number in numbers]

    def _row(self, number: int, file: Any) -> dict[str, Any]:
        path = self._files[self._file[number]].path
        found = row_at(file, self._offset[number], Finding, path)
        return {
            "number": number, "id": found.id, "log_id": found.log_id, "source": found.source,
            "role": named(found.role), "rule": found.rule, "action": found.action, "code": found.reason.code,
            "reason": found.reason.sentence(), "task": found.task, "answer": found.answer,
        }  # fmt: skip

    def id_of(self, number: int) -> str:
        """The id of a finding's row."""
        with all_open(self._files) as files:
            file = self._file[number]
            return row_at(files[file], self._offset[number], Finding, self._files[file].path).id

    def __len__(self) -> int:
        return len(self._offset)


def interaction_of(root: Path, row_id: str) -> Interaction | None:
    """The logged row that a finding is about, as ingest wrote it; None if it is not there. Reads the file up to it.

    Raises:
        InputError: the file is missing or damaged.
    """
    begins = b'{"id":' + json.dumps(row_id, ensure_ascii=False).encode("utf-8", "surrogatepass") + b","
    folder = PLACES["ingest"].folder
    with opened(root, folder, INTERACTIONS) as raw:
        stream: Any = io.BufferedReader(ZstdFile(raw), 1 << 20)
        try:
            for line in stream:
                if line.startswith(begins):
                    return Interaction.model_validate_json(line)
        except (EOFError, zstandard.ZstdError, ValueError) as error:
            raise InputError(f"{root / folder}: damaged: {error}", "journeyman verify") from error
    return None
