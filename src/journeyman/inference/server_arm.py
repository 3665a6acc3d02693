"""What is verified about a server before it is asked: its models, its prompts and its weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from journeyman.inference.model_server import ModelServer, hash_of_peft
from journeyman.inference.prompt_proof import prove_server_prompts
from journeyman.inference.weights_proof import Reference, compare_weights
from journeyman.manifests import ComparedWeights, ServedFile, ServerUsed
from journeyman.model_files import size_of_model
from journeyman.protocols import Reporter
from journeyman.records import Example
from journeyman.rendering.renderer import Renderer

_COMPARED_ROWS = 4


def examined(
    server: ModelServer, rows: Sequence[Example], renderer: Renderer, reference: Reference, reporter: Reporter
) -> ServedFile:
    """What the server serves, verified as far as its API allows.

    Raises:
        EngineError: a model is missing, or the server makes other prompts, or has other weights.
        Interrupted: asked to stop.
    """
    served = server.served
    version = server.check()
    identical = prove_server_prompts(rows, renderer, server, reporter)
    reporter.begin(f"compare {served.config.url} with what was trained", 1, "model")
    weights = _compared_weights(server, rows, renderer, reference)
    return ServedFile(
        path=str(served.path),
        sha256=served.sha256,
        size_gb=size_of_model(served.path) / 1e9,
        load_s=None,
        warm_up_s=None,
        peak_memory_gb=None,
        identical_prompts=identical,
        server=ServerUsed(
            url=served.config.url,
            base_model=served.base_model,
            tuned_models=served.tuned_models,
            version=version,
            adapter_sha256={name: hash_of_peft(folder) for name, folder in served.adapters.items()},
            weights=weights,
        ),
    )


def _compared_weights(
    server: ModelServer, rows: Sequence[Example], renderer: Renderer, reference: Reference
) -> ComparedWeights | None:
    """Compares them on the shortest rows of each adapter, with their answers."""
    of_adapter: dict[str, list[list[int]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.prompt_tokens + row.answer_tokens):
        name = server.served.adapter_of(row.role)
        if name is not None and len(of_adapter[name]) < _COMPARED_ROWS:
            of_adapter[name].append([*renderer.prompt_ids(row.messages, row.tools), *renderer.encode(row.answer)])
    return compare_weights(server, [(name, ids) for name, found in of_adapter.items() for ids in found], reference)
