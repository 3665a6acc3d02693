"""Finds the file of a model in Ollama's store.

Source: ollama/ollama, docs and server/: `manifests/HOST/NAMESPACE/NAME/TAG` is JSON that lists layers, and the layer
with the media type of a model is the GGUF file `blobs/sha256-…`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from journeyman.artifacts import expanded
from journeyman.errors import InputError
from journeyman.foreign import plain

PREFIX = "ollama:"
SERVICE = Path("/usr/share/ollama/.ollama/models")
"""Where Ollama's installer for Linux lets the service keep its models."""

_LIBRARY = "registry.ollama.ai/library"
_MODEL, _ADAPTER = "application/vnd.ollama.image.model", "application/vnd.ollama.image.adapter"
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NAME = re.compile(rf"((?:{_PART}/){{0,2}}{_PART})(?::({_PART}))?")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MOST_BYTES = 1 << 20
_MOST_NAMED = 20


def find_in_ollama(model: str) -> Path:
    """The GGUF file of a model that Ollama has pulled.

    Args:
        model: `ollama:NAME[:TAG]`; NAME may be `USER/NAME` or `HOST/USER/NAME`, and TAG is `latest` by default.

    Raises:
        InputError: Ollama has no models on this machine, or not this one; its manifest is damaged; or it is not
            exactly one GGUF file.
    """
    where = f"base.model = {model!r}"
    found = _NAME.fullmatch(model.removeprefix(PREFIX))
    if found is None:
        raise InputError(f"{where}: not a model's name", "Write it as `ollama list` shows it: ollama:NAME:TAG")
    name, tag = found[1], found[2] or "latest"
    store = _store(where, name, tag)
    try:
        return _file_in(where, store, name, tag)
    except PermissionError as error:
        raise _refused(where, store) from error


def _file_in(where: str, store: Path, name: str, tag: str) -> Path:
    path = store / "manifests" / _below(name) / tag
    if not path.is_file():
        there = models_of(store)
        more = f" and {len(there) - _MOST_NAMED} more" if len(there) > _MOST_NAMED else ""
        listed = f"it has {', '.join(plain(one, 80) for one in there[:_MOST_NAMED])}{more}" if there else "it is empty"
        raise InputError(
            f"{where}: no such model in Ollama's store {store}; {listed}", f"Get it: ollama pull {name}:{tag}"
        )
    return _blob(where, store, path, f"ollama pull {name}:{tag}")


def models_of(store: Path) -> list[str]:
    """The models in a store as `ollama list` names them, sorted."""
    manifests = store / "manifests"
    found = (path.relative_to(manifests) for path in manifests.glob("*/*/*/*") if path.is_file())
    names = (f"{path.parent.as_posix()}:{path.name}" for path in found)
    return sorted(one.removeprefix(f"{_LIBRARY}/").removeprefix("registry.ollama.ai/") for one in names)


def _store(where: str, name: str, tag: str) -> Path:
    """The folder with Ollama's manifests and blobs."""
    named = os.environ.get("OLLAMA_MODELS")
    places = [expanded(named)] if named else [expanded("~/.ollama/models"), SERVICE]
    for place in places:
        try:
            if (place / "manifests").stat():
                return place
        except PermissionError as error:
            raise _refused(where, place) from error
        except OSError:
            continue
    raise InputError(
        f"{where}: there are no Ollama models in {' or '.join(map(str, places))}",
        f"Install Ollama and run: ollama pull {name}:{tag}; or set OLLAMA_MODELS to the folder of its models",
    )


def _refused(where: str, store: Path) -> InputError:
    return InputError(
        f"{where}: {store} cannot be read by this user",
        "Join the group of Ollama's service and log in again: sudo usermod -aG ollama $USER",
    )


def _below(name: str) -> Path:
    """The folder of a model's tags, below `manifests`."""
    parents = name.count("/")
    return Path(f"{_LIBRARY}/{name}" if not parents else f"registry.ollama.ai/{name}" if parents == 1 else name)


def _blob(where: str, store: Path, manifest: Path, pull: str) -> Path:
    layers = _layers(where, manifest, pull)
    kinds = [layer.get("mediaType") for layer in layers]
    if _ADAPTER in kinds:
        raise InputError(
            f"{where}: a base with an adapter, and the adapter is no part of the GGUF file",
            "Name the model that it was made from, as `ollama show --modelfile` shows it",
        )
    if kinds.count(_MODEL) != 1:
        raise InputError(
            f"{where}: {manifest} lists {kinds.count(_MODEL)} GGUF files, not one", "Set base.model to a .gguf file"
        )
    layer = layers[kinds.index(_MODEL)]
    digest = _DIGEST.fullmatch(str(layer.get("digest")))
    if digest is None:
        raise InputError(f"{where}: {manifest} is damaged: no SHA-256 of the model", f"Get it again: {pull}")
    path = store / "blobs" / f"sha256-{digest[1]}"
    size = path.stat().st_size if path.is_file() else None
    if size is None:
        raise InputError(f"{where}: its file {path} is missing", f"Get it again: {pull}")
    if size != layer.get("size", size):
        raise InputError(f"{where}: {path} has {size:,} bytes, not {layer['size']}", f"Get it again: {pull}")
    return path


def _layers(where: str, manifest: Path, pull: str) -> list[Mapping[str, Any]]:
    try:
        with manifest.open("rb") as file:
            layers = json.loads(file.read(_MOST_BYTES))["layers"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise InputError(f"{where}: {manifest} is damaged: it lists no layers", f"Get it again: {pull}") from error
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise InputError(f"{where}: {manifest} is damaged: its layers are not a list", f"Get it again: {pull}")
    return layers
