"""Verifies that what serves makes the same token ids from prompts as training does."""

from __future__ import annotations

from collections.abc import Sequence

from journeyman.errors import EngineError, Interrupted
from journeyman.inference.model_server import ModelServer
from journeyman.protocols import EvaluatedEngine, Reporter
from journeyman.records import Example
from journeyman.rendering.renderer import Renderer

_SHOWN = 8


def prove_prompts(rows: Sequence[Example], renderer: Renderer, engine: EvaluatedEngine, reporter: Reporter) -> int:
    """Compares the prompt of each row, and returns their number.

    Raises:
        EngineError: a prompt's ids differ.
        Interrupted: asked to stop.
    """
    for row in rows:
        if reporter.stop_requested:
            raise Interrupted("stopped before the first answer", "Run the same command again to resume")
        refuse_difference(row, engine.prompt_ids(row.messages, row.tools), renderer, engine.settings.base.name)
    return len(rows)


def prove_server_prompts(
    rows: Sequence[Example], renderer: Renderer, server: ModelServer, reporter: Reporter
) -> int | None:
    """As prove_prompts, for a server; None if it does not say which ids it makes."""
    for row in rows:
        if reporter.stop_requested:
            raise Interrupted("stopped before the first answer", "Run the same command again to resume")
        served = server.prompt_ids(row.messages, row.tools)
        if served is None:
            return None
        refuse_difference(row, served, renderer, server.served.config.url)
    return len(rows)


def refuse_difference(row: Example, served: Sequence[int], renderer: Renderer, server: str) -> None:
    """Raises EngineError if the ids that `server` made of a row's prompt are not those of training."""
    trained = renderer.prompt_ids(row.messages, row.tools)
    if trained == served:
        return
    shorter = min(len(trained), len(served))
    place = next((i for i in range(shorter) if trained[i] != served[i]), shorter)
    raise EngineError(
        f"row {row.id}: training and {server} make different prompts, from token {place} on: "
        f"{renderer.decode(trained[place:][:_SHOWN])!r} in training, "
        f"{renderer.decode(served[place:][:_SHOWN])!r} in the engine",
        "Use a file of the same model; if it is, its chat template or tokenizer is not supported",
    )
