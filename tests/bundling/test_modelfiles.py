"""Which chat template Ollama is told to use."""

from __future__ import annotations

from dataclasses import replace

import pytest

from journeyman.bundling.modelfiles import _ollama_template
from journeyman.rendering.settling import Settled

CHATML = Settled("in Jinja", None, {}, own=False, name="chatml", end_token="<|im_end|>")


def test_a_chosen_template_is_written_only_for_a_base_without_one() -> None:
    """Ollama, which has both, takes the one in the file if that knows tools."""
    assert _ollama_template(CHATML)[0].startswith("TEMPLATE ")
    with pytest.raises(ValueError, match="the base's file has a chat template of its own"):
        _ollama_template(replace(CHATML, replaces=True))
    assert _ollama_template(Settled("in Jinja", None, {}, own=True)) == []
