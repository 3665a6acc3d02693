"""The engine is asked whether it knows an architecture, before anything is trained for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from journeyman.config import Config
from journeyman.errors import InputError
from journeyman.inference.engines import engine_knows
from journeyman.models import opening
from journeyman.models.families import FAMILIES
from journeyman.runs import Run


@pytest.mark.parametrize("name", ["stablelm", "falcon-h1", "olmoe", *FAMILIES])
def test_an_architecture_that_the_engine_has(name: str) -> None:
    assert engine_knows(name)


@pytest.mark.parametrize("name", ["stablelm9", "no", "", "'", "llama\n"])
def test_an_architecture_that_the_engine_does_not_have(name: str) -> None:
    assert not engine_knows(name)


def test_a_base_that_it_cannot_serve_is_refused(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, Config.model_validate({"base": {"model": str(tiny_gguf)}}))
    run.refuse_unservable()
    for name in ("stablelm", "tomorrow"):
        monkeypatch.setattr(opening, "architecture_to_serve", lambda base, name=name: name)
        if name == "tomorrow":
            with pytest.raises(InputError, match=r"engine cannot serve its architecture \(tomorrow\)"):
                run.refuse_unservable()
        else:
            run.refuse_unservable()
