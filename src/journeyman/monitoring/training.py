"""What the run was trained on: prompts to compare the recorded ones with, and their form."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any
from zlib import crc32

from journeyman.config import RedactConfig
from journeyman.gateway.row_files import row_in
from journeyman.manifests import BundleManifest, DatasetManifest
from journeyman.monitoring.drift import LEAST_PROMPTS, Reference
from journeyman.monitoring.prompts import Prompt, Sample, distinct, prompt_of
from journeyman.monitoring.recorded import Differences, RecordedPrompts
from journeyman.serving.preparing import differences_of
from journeyman.sources.fields import mapping

_MOST_PARSED = 1 << 27
"""Bytes of a file of training rows that are parsed; of larger files, rows are drawn by their hashes."""
_ENOUGH_VALIDATION = 5 * LEAST_PROMPTS
_HELD_OUT_PART = 5


class Examples:
    """The prompts of a dataset's folder, read once for each state of its files.

    Args:
        folder: with train.jsonl and val.jsonl.
        most: prompts of each role and part.
        alike: see distinct.
    """

    def __init__(self, folder: Path, most: int, alike: float) -> None:
        self._folder, self._most, self._alike = folder, most, alike
        self._state: object = None
        self._roles: dict[str, Reference] = {}

    def reference(self, role: str) -> Reference | None:
        """The prompts of a role; None if the run has no training data of it."""
        files = [self._folder / "train.jsonl", self._folder / "val.jsonl"]
        state = [_state(path) for path in files]
        if state != self._state:
            self._state, self._roles = state, self._read(*files)
        return self._roles.get(role)

    def _read(self, train: Path, val: Path) -> dict[str, Reference]:
        known, apart, validation = _Parts(self._most), _Parts(self._most), _Parts(self._most)
        for row in _rows(train):
            part = apart if crc32(str(row.get("group")).encode("utf-8", "replace")) % _HELD_OUT_PART == 0 else known
            part.take(row)
        for row in _rows(val):
            validation.take(row)
        made = {}
        for role in known.roles() | apart.roles():
            inside, held_out = known.of(role), validation.of(role)
            if len(held_out) >= _ENOUGH_VALIDATION:
                inside = [*inside, *apart.of(role)]
            else:
                held_out = apart.of(role)
            made[role] = Reference(distinct(inside, self._alike)[: self._most], distinct(held_out, self._alike))
        return made


class _Parts:
    """Samples by role, one row of each group."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._samples: dict[str, Sample[Prompt]] = {}

    def take(self, row: Mapping[str, Any]) -> None:
        sample = self._samples.setdefault(str(row.get("role")), Sample(self._most))
        group, member = str(row.get("group")), str(row.get("id"))
        turns, tools = row.get("messages"), row.get("tools") or []
        if isinstance(turns, list) and isinstance(tools, list) and sample.wants(group, member):
            sample.add(group, member, prompt_of(map(mapping, turns), map(mapping, tools)))

    def roles(self) -> set[str]:
        return set(self._samples)

    def of(self, role: str) -> list[Prompt]:
        return self._samples[role].values() if role in self._samples else []


def of_older_rows(
    rows: Iterator[Mapping[str, Any]], most: int, named: Set[str], alike: float
) -> Callable[[str], Reference]:
    """The reference of each role from recorded rows; half of the conversations are held out.

    Args:
        most, named: see RecordedPrompts.
        alike: see distinct.
    """
    halves = RecordedPrompts(most, named), RecordedPrompts(most, named)
    for row in rows:
        conversation = str(row.get("conversation") or row.get("seq"))
        halves[crc32(conversation.encode("utf-8", "replace")) % 2].take(row)

    def reference(role: str) -> Reference:
        known, held_out = (distinct([one.prompt for one in half.of(role)], alike) for half in halves)
        return Reference(known, held_out, "older_rows")

    return reference


def differences_in(
    bundle: BundleManifest | None, dataset: DatasetManifest | None, redact: RedactConfig
) -> Differences | None:
    """Compares turns with the prompts of the bundle, else with those of the dataset; None if there is neither."""
    if bundle is None and dataset is not None:
        # Of a bundle, only what it says about prompts is asked for.
        bundle = BundleManifest(
            roles=list(dataset.splits), system_prompts=dataset.system_prompts, prompts=dataset.prompts,
            redact={"secrets": redact.secrets, "personal": redact.personal, "system_apart": True}, override=None,
            base_sha256="", adapter_sha256={}, adapter_files={}, base_file="", base_path="", settings={},
        )  # fmt: skip
    if bundle is None:
        return None
    known = bundle

    def differences(role: str, turns: Sequence[dict[str, Any]]) -> tuple[str, ...] | None:
        return differences_of(known, role, turns) if role in known.roles else None

    return differences


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file; of a large one, a part that their hashes decide."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        one_in = -(-os.fstat(file.fileno()).st_size // _MOST_PARSED)
        for line in file:
            if one_in > 1 and crc32(line) % one_in:
                continue
            if row := row_in(line):
                yield row


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
