"""The engine is asked whether it knows an architecture, before anything is trained for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from journeyman.errors import InputError
from journeyman.inference.engines import engine_knows
from journeyman.models.families import FAMILIES
from journeyman.runs import _refuse_unservable


@pytest.mark.parametrize("name", ["stablelm", "falcon-h1", "olmoe", *list(FAMILIES)[:2]])
def test_an_architecture_that_the_engine_has(name: str) -> None:
    assert engine_knows(name)


@pytest.mark.parametrize("name", ["stablelm9", "no", "", "'", "llama\n"])
def test_an_architecture_that_the_engine_does_not_have(name: str) -> None:
    assert not engine_knows(name)
    with pytest.raises(InputError, match="the installed engine cannot serve"):
        _refuse_unservable(Path("base"), name)
