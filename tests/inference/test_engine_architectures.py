"""The engine is asked whether it knows an architecture, before anything is trained for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from journeyman.config import Config
from journeyman.errors import EngineError, InputError
from journeyman.inference import llama_facts
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


def test_output_that_the_engine_lost_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process can end before all is printed: then nothing, or the first of two equal errors, arrives."""
    error = "E load: unknown model architecture: ''"
    said = {"new": [[], [error]], "no-such-architecture": [["Traceback"], [error, error]]}
    monkeypatch.setattr(llama_facts, "_said_of", lambda name: said[name].pop(0))
    assert not llama_facts.llama_knows("new")


def test_an_engine_that_says_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_facts, "_said_of", lambda name: [])
    with pytest.raises(EngineError, match="does not say which architectures"):
        llama_facts.llama_knows("llama")


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
