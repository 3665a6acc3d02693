"""Files and folders that are complete or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from journeyman.artifacts import is_leftover, replace_folder


def _folder(place: Path, text: str) -> Path:
    (place / "sub").mkdir(parents=True)
    (place / "a").write_text(text)
    (place / "sub" / "b").write_text(text)
    return place


def test_a_folder_is_on_disk_before_it_is_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    rename, before = Path.rename, list[bool]()

    def renamed(self: Path, target: Path) -> Path:
        if self == made:
            parts = (made, made / "a", made / "sub", made / "sub" / "b")
            before.append({part.stat().st_ino for part in parts} <= synced)
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", lambda handle: synced.add(os.fstat(handle).st_ino))
    monkeypatch.setattr(Path, "rename", renamed)
    made = _folder(tmp_path / "made", "new")
    replace_folder(tmp_path / "place", made)
    made = _folder(tmp_path / "made", "newer")
    replace_folder(tmp_path / "place", made)
    assert before == [True, True] and (tmp_path / "place" / "sub" / "b").read_text() == "newer"
    assert [one.name for one in tmp_path.iterdir()] == ["place"] and tmp_path.stat().st_ino in synced


def test_the_old_folder_stays_until_the_new_one_is_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, place = _folder(tmp_path / "made", "new"), _folder(tmp_path / "place", "old")
    rename, seen = Path.rename, list[str]()

    def refused(self: Path, target: Path) -> Path:
        if self == made:
            (aside,) = [one for one in tmp_path.iterdir() if is_leftover(one)]
            seen.append((aside / "sub" / "b").read_text())
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OSError, match="No space"):
        replace_folder(place, made)
    assert seen == ["old"] and (place / "sub" / "b").read_text() == "old"
