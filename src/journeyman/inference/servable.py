"""Before training: the files that may ship are the same base as the one that is trained on, and the engine loads them.

What is found only after training costs hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from journeyman.artifacts import read_rows
from journeyman.config import EvaluateConfig
from journeyman.inference.engines import evaluated_server, running_engine
from journeyman.inference.prompt_proof import prove_prompts
from journeyman.manifests import PlannedFile
from journeyman.model_files import hash_of_model, is_checkpoint, size_of_model
from journeyman.models.base import Base
from journeyman.models.converting import made_by
from journeyman.models.geometry import Geometry
from journeyman.models.opening import open_base, sizes_of
from journeyman.models.same_base import same_base
from journeyman.protocols import EngineSettings, Reporter
from journeyman.records import Example
from journeyman.rendering.renderer import Renderer

_PROMPTS = 64


def planned_files(
    base: Base,
    served: Sequence[Path],
    rows: Path,
    renderer: Renderer,
    config: EvaluateConfig,
    root: Path,
    reporter: Reporter,
) -> list[PlannedFile]:
    """The files that may ship, after these checks.

    Args:
        rows: the training rows; some of their prompts are put to the engine if the base is a folder.
        root: the run's folder.

    Raises:
        InputError: a file is another base.
        EngineError: the engine does not load a file, or makes other prompts with it.
        Interrupted: asked to stop.
    """
    examples = list(islice(read_rows(rows, Example), _PROMPTS)) if is_checkpoint(base.path) else []
    return [_planned(base, path, examples, renderer, config, root, reporter) for path in served]


def _planned(
    base: Base,
    path: Path,
    rows: Sequence[Example],
    renderer: Renderer,
    config: EvaluateConfig,
    root: Path,
    reporter: Reporter,
) -> PlannedFile:
    if path != base.path and isinstance(sizes_of(base), Geometry):  # others: see adapter_proof
        reporter.begin(f"compare {path.name} with the base", 1, "model")
        same_base(base, open_base(path))
    if rows:
        reporter.begin(f"load {path.name}", 1, "model")
        template = renderer.served_template
        settings = EngineSettings(
            path, {}, config.context, config.threads, config.temperature,
            chat_template=None if template.own else template.source, template_variables=template.variables,
            llama_server=evaluated_server(config, root),
        )  # fmt: skip
        with running_engine(settings) as engine:
            prove_prompts(rows, renderer, engine, reporter)
    size = size_of_model(path) / 1e9
    return PlannedFile(path=str(path), sha256=hash_of_model(path), size_gb=size, made_by=made_by(path))
