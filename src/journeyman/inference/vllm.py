"""The command that serves a Hugging Face folder and its adapters with vLLM."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import urlsplit

from journeyman.errors import InputError
from journeyman.foreign import shell_word
from journeyman.manifests import BundleManifest

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM accepts for --max-lora-rank (vllm/config/lora.py)."""


def defaults_of(bundle: BundleManifest) -> Mapping[str, object]:
    """What applies to requests that do not say otherwise, as the bundle was evaluated. No answer may be longer."""
    return {"temperature": bundle.settings["temperature"], "max_new_tokens": bundle.settings["max_new_tokens"]}


def vllm_command(
    base: str,
    revision: str | None,
    name: str,
    adapters: Mapping[str, str],
    rank: int,
    context: int,
    url: str,
    defaults: Mapping[str, object] | None = None,
) -> str:
    """The command, with quoted words.

    Args:
        base: a repo of the hub, or a folder.
        name: the base's name in requests.
        adapters: the adapter's name in requests → its folder.
        context: tokens of prompt and answer.
        url: where it will be asked; its port is used.
        defaults: see defaults_of; None: vLLM's own.

    Raises:
        InputError: vLLM does not serve adapters of this rank.
    """
    largest = next((one for one in _RANKS if one >= rank), None)
    if largest is None:
        raise InputError(f"vLLM serves adapters up to rank {_RANKS[-1]}, not {rank}", "Lower train.lora.rank")
    words = [
        "vllm", "serve", base, *(["--revision", revision] if revision else []),
        *(["--served-model-name", name] if name != base else []),
        "--enable-lora", "--max-lora-rank", str(largest), "--max-loras", str(len(adapters)),
        "--max-model-len", str(context),
        # Otherwise, the folder's generation_config.json changes what requests do not set, such as a repetition penalty.
        "--generation-config", "vllm", *(["--override-generation-config", json.dumps(defaults)] if defaults else []),
        "--lora-modules", *(f"{one}={folder}" for one, folder in adapters.items()),
        "--host", "127.0.0.1", "--port", str(urlsplit(url).port or 8000),
    ]  # fmt: skip
    return " ".join(map(shell_word, words))
