"""Which release takes over if another one becomes current while it loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from journeyman.api import following
from journeyman.api.following import Following
from journeyman.artifacts import write_atomic
from journeyman.bundles import open_bundle
from journeyman.config import ServeConfig
from journeyman.errors import InputError
from journeyman.promotion import promote, rollback
from journeyman.releases import RECORD, current
from journeyman.serving.switching import Next
from promoting import write_bundle


class Loading:
    """Two bundles of which the first is served, and engines that only count how many run."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.releases, self.engines = folder / "releases", 0
        self.meanwhile: Callable[[], object] = lambda: None
        self.told: list[str] = []
        self.one, self.two, self.three = (write_bundle(folder / name, name) for name in ("one", "two", "three"))
        known = promote(self.one, self.releases)
        monkeypatch.setattr(following, "prepared", lambda place, *rest: (open_bundle(place).manifest, None))
        monkeypatch.setattr(following, "start_engine", self._started)
        self._following = Following(self.releases, known, ServeConfig(), True, self.told.append)

    def _started(self, settings: Any) -> Loading:
        self.engines += 1
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return self

    def stop(self) -> None:
        self.engines -= 1

    def look(self) -> Next | None:
        return self._following.application(lambda *arguments: Starlette(), lambda: None)

    @property
    def served(self) -> int:
        return self._following.served.number


@pytest.fixture
def loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loading:
    return Loading(tmp_path, monkeypatch)


def _take_over(found: Next | None) -> None:
    assert found is not None
    found.took_over()


def test_a_release_that_is_rolled_back_while_it_loads_does_not_take_over(loading: Loading) -> None:
    promote(loading.two, loading.releases)
    loading.meanwhile = lambda: rollback(loading.releases)
    assert loading.look() is None and loading.engines == 0
    assert loading.look() is None and loading.served == 1 and loading.told == []
    promote(loading.two, loading.releases)
    _take_over(loading.look())
    assert loading.served == 2 and loading.engines == 1


def test_of_two_that_are_promoted_in_succession_only_the_last_takes_over(loading: Loading) -> None:
    promote(loading.two, loading.releases)
    loading.meanwhile = lambda: promote(loading.three, loading.releases)
    assert loading.look() is None and loading.engines == 0
    _take_over(loading.look())
    assert loading.served == 3 and loading.engines == 1


def test_a_release_does_not_take_over_if_the_record_was_damaged_meanwhile(loading: Loading) -> None:
    promote(loading.two, loading.releases)
    sound = (loading.releases / RECORD).read_bytes()
    loading.meanwhile = lambda: write_atomic(loading.releases / RECORD, b"{")
    with pytest.raises(InputError):
        loading.look()
    assert loading.engines == 0
    write_atomic(loading.releases / RECORD, sound)
    found = current(loading.releases)
    assert found is not None and found.number == 2
    _take_over(loading.look())
    assert loading.served == 2
