"""A bundle before it is served: its files compared with their hashes, and the settings of its engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from journeyman.api.engine_choice import llama_server_of
from journeyman.bundles import files_to_serve, open_bundle, refuse_unevaluated, refuse_without_base, served_settings
from journeyman.config import ServeConfig
from journeyman.errors import UsageError
from journeyman.inference.engines import identity_now
from journeyman.lineage import check_files
from journeyman.manifests import BundleManifest
from journeyman.protocols import EngineSettings
from journeyman.runs import folder_with_config
from journeyman.serving.evaluated import check_engine


def prepared(
    folder: Path, config: ServeConfig, allow_other_engine: bool, told: Callable[[str], None]
) -> tuple[BundleManifest, EngineSettings]:
    """A bundle whose files were compared, and the engine that it needs; raises as `hosted` does."""
    opened = open_bundle(folder)
    refuse_unevaluated(opened)
    place, bundle = opened.place, opened.manifest
    if bundle.server is not None and not config.engine_url:
        raise UsageError(
            f"{place}: its base is served by {bundle.server.url}, and not by this machine's engine",
            f"To start vLLM: sh {place / 'vllm.sh'}; then: journeyman serve --engine-url {bundle.server.url}",
        )
    base = Path(bundle.base_path)
    if bundle.server is None:
        refuse_without_base(opened)
        base = place / bundle.base_file
    served = served_settings(opened)
    check_files(place, opened.stamp, files_to_serve(opened))
    settings = EngineSettings(
        base=base,
        adapters={name: place / file for name, file in bundle.adapter_files.items()},
        context=served.context,
        threads=served.threads,
        temperature=served.temperature,
        parallel=served.parallel,
        chat_template=bundle.template_file and (place / bundle.template_file).read_text(encoding="utf-8"),
        template_variables=bundle.template_variables,
        llama_server=llama_server_of(config, folder),
    )
    if not config.engine_url:
        here = identity_now(settings.context, settings.parallel, settings.threads, settings.llama_server)
        for line in check_engine(bundle.engine, here, folder_with_config(folder), allow_other=allow_other_engine):
            told(line)
    return bundle, settings
