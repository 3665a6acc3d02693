"""Which arm answers a conversation: drawn once, kept as long as the conversation may go on, also across restarts.

The draw is a hash of the trial and the conversation, so nobody can influence it, and a lost file changes nothing as
long as the share stays. The file is needed when the share changes: a conversation keeps the arm, and the share, that it
began with, which the canary's statistics weight it by.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from journeyman.artifacts import disk_error

Arm = Literal["teacher", "student"]
ASSIGNED = "assigned.jsonl"
MOST = 200_000
"""Conversations that are remembered; the oldest are forgotten, and drawn again by their hash if they go on."""


@dataclass(frozen=True)
class Assignment:
    """The arm of a conversation, and the probability with which the student was drawn."""

    arm: Arm
    share: float


def drawn(trial: int, conversation: str, share: float) -> Assignment:
    """Draws the arm."""
    digest = hashlib.sha256(f"{trial}\0{conversation}".encode("utf-8", "surrogatepass")).digest()
    uniform = int.from_bytes(digest[:8], "big") / 2**64
    return Assignment("student" if uniform < share else "teacher", share)


def digest_of(conversation: str) -> str:
    """What is remembered of a conversation's name."""
    return hashlib.sha256(conversation.encode("utf-8", "surrogatepass")).hexdigest()[:20]


class Assignments:
    """The arms of conversations. Use it in the process that holds the lock of the recorder's folder.

    Raises:
        DiskError: the folder cannot be read or written to.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / ASSIGNED
        self._known: OrderedDict[tuple[int, str], Assignment] = OrderedDict()
        lines = 0
        try:
            for key, found in _saved(self._path):
                self._remember(key, found)
                lines += 1
            if lines > 2 * MOST:
                self._rewrite()
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            if lines and not _ends_line(self._path):
                os.write(self._file, b"\n")
        except OSError as error:
            raise disk_error(error, self._path) from error

    def known(self, trial: int, conversation: str) -> bool:
        """Whether the conversation has an arm in a trial."""
        return (trial, digest_of(conversation)) in self._known

    def latest(self) -> dict[str, Arm]:
        """Digest of each conversation → its arm in the trial in which it was drawn last."""
        return {digest: made.arm for (_, digest), made in self._known.items()}

    def arm(self, trial: int, conversation: str, share: float) -> Assignment:
        """The arm of a conversation in a trial. If the file cannot be written, the draw holds all the same."""
        key = (trial, digest_of(conversation))
        if (known := self._known.get(key)) is not None:
            return known
        made = drawn(trial, conversation, share)
        self._remember(key, made)
        try:
            os.write(self._file, _line(key, made))
        except OSError:  # a full disk: it is drawn the same way again
            pass
        return made

    def _remember(self, key: tuple[int, str], made: Assignment) -> None:
        self._known[key] = made
        if len(self._known) > MOST:
            self._known.popitem(last=False)

    def _rewrite(self) -> None:
        staged = self._path.with_name(f".{ASSIGNED}.tmp")
        staged.write_bytes(b"".join(_line(key, made) for key, made in self._known.items()))
        staged.chmod(0o600)
        staged.replace(self._path)

    def close(self) -> None:
        os.close(self._file)


def _line(key: tuple[int, str], made: Assignment) -> bytes:
    return json.dumps([key[0], key[1], made.arm, made.share]).encode() + b"\n"


def _saved(path: Path) -> Iterator[tuple[tuple[int, str], Assignment]]:
    """What the file says; a line that a killed process left incomplete is skipped."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                trial, conversation, arm, share = json.loads(line)
                known = isinstance(trial, int) and isinstance(conversation, str) and arm in ("teacher", "student")
            except (ValueError, TypeError):
                continue
            if known and isinstance(share, float):
                yield (trial, conversation), Assignment(arm, share)


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
