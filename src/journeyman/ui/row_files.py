"""Rows of JSON lines by their offsets, so that a page of them is read without parsing the file for each request."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from journeyman.errors import ChangedArtifact
from journeyman.runs import PLACES
from journeyman.ui.files import State, lines_of, opened, state_of_open
from journeyman.ui.manifests import Manifests

_M = TypeVar("_M", bound=BaseModel)


class RowFile:
    """A file of rows of a finished stage."""

    def __init__(self, root: Path, stage: str, name: str) -> None:
        self.root, self.stage, self.name = root, stage, name

    @property
    def path(self) -> Path:
        return self.root / PLACES[self.stage].folder / self.name

    @contextmanager
    def reading(self) -> Iterator[BinaryIO]:
        """Opens it; raises as files.opened does."""
        with opened(self.root, PLACES[self.stage].folder, self.name) as file:
            yield file

    def parsed(self, file: BinaryIO) -> Iterator[tuple[int, dict[str, Any]]]:
        """Offset and JSON of each row.

        Raises:
            ChangedArtifact: a line is no JSON object.
        """
        for offset, line in lines_of(file):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ChangedArtifact(f"{self.path}: damaged at byte {offset}", "journeyman verify") from error
            if not isinstance(row, dict):
                raise ChangedArtifact(f"{self.path}: no row at byte {offset}", "journeyman verify")
            yield offset, row


def state_of_files(files: Iterable[RowFile], manifests: Manifests) -> tuple[State, ...]:
    """The states of files that are as their stages made them.

    Raises:
        ChangedArtifact: one was changed.
        NotMade: a stage is not finished.
    """
    states = []
    for one in files:
        manifests.checked(one.root, one.stage, [one.name])
        with one.reading() as file:
            states.append(state_of_open(file))
    return tuple(states)


def row_at(file: BinaryIO, offset: int, kind: type[_M], path: Path) -> _M:
    """The row at an offset.

    Raises:
        ChangedArtifact: there is none of this kind.
    """
    file.seek(offset)
    try:
        return kind.model_validate_json(file.readline())
    except ValidationError as error:
        raise ChangedArtifact(f"{path}: no {kind.__name__} at byte {offset}", "journeyman verify") from error


def json_at(file: BinaryIO, offset: int) -> Any:
    """The JSON value of the row at an offset that was read before."""
    file.seek(offset)
    return json.loads(file.readline())


class Search:
    """Finds rows that contain a text, without regard to case, in fields that people read.

    The line itself is looked at first, because most lines need not be parsed then: plain characters are written into
    JSON as they are.
    """

    def __init__(self, text: str) -> None:
        self._text = text.casefold()
        plain = text.isascii() and text.isprintable() and not set(text) & set('"\\')
        self._raw = text.lower().encode() if plain else None

    def finds(self, line: bytes, fields: Sequence[str]) -> bool:
        if self._raw is not None and self._raw not in line.lower():
            return False
        row = json.loads(line)
        return any(self._in(row.get(field)) for field in fields)

    def _in(self, value: Any) -> bool:
        match value:
            case str():
                return self._text in value.casefold()
            case dict():
                return any(self._in(inner) for inner in value.values())
            case list():
                return any(map(self._in, value))
        return False


@contextmanager
def all_open(files: Sequence[RowFile]) -> Iterator[list[BinaryIO]]:
    """Opens several files."""
    with ExitStack() as stack:
        yield [stack.enter_context(one.reading()) for one in files]
