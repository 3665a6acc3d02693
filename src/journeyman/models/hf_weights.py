"""The files of a Hugging Face folder: which ones hold the tensors, and whether all of them are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.model_files import CONFIG, INDEX, WEIGHTS
from journeyman.models.hf_config import read_object
from journeyman.models.safetensors_file import StoredTensor, read_header

_MOST_SHARDS = 10_000
_MOST_NAMED = 3
_AGAIN = "Download or copy all files of the model again, into one folder"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_OTHER_FORMATS = {".onnx": "ONNX", ".h5": "TensorFlow", ".msgpack": "Flax", ".tflite": "TensorFlow Lite"}


def read_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of the folder's model, by its name.

    Raises:
        InputError: a file is missing, damaged or of another model, or the weights are not in safetensors.
    """
    if (folder / "adapter_config.json").is_file():
        raise InputError(
            f"{folder}: an adapter is in the folder (adapter_config.json), which transformers would add to the model",
            "Move adapter_config.json and adapter_model.safetensors to a folder of their own",
        )
    single, index = folder / WEIGHTS, folder / INDEX
    if single.is_file() and index.is_file():
        raise InputError(
            f"{folder}: both {WEIGHTS} and {INDEX}, which may be two models", "Remove the one that is not meant"
        )
    if index.is_file():
        return _indexed(folder, index)
    if single.is_file():
        return read_header(single)
    raise _no_weights(folder)


def _indexed(folder: Path, index: Path) -> dict[str, StoredTensor]:
    place_of = read_object(index).get("weight_map")
    if not isinstance(place_of, dict) or not all(isinstance(one, str) for one in place_of.values()):
        raise InputError(f"{index}: no weight_map of names", _AGAIN)
    shards = sorted(set(place_of.values()))
    for name in shards:
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise InputError(f"{index}: names the file {plain(name, 80)!r}, which is not in the folder", _AGAIN)
    if len(shards) > _MOST_SHARDS:
        raise InputError(f"{index}: {len(shards):,} files", _AGAIN)
    _refuse_missing(folder, shards)
    return _joined(index, place_of, {name: read_header(folder / name) for name in shards})


def _joined(
    index: Path, place_of: Mapping[str, str], shards: Mapping[str, Mapping[str, StoredTensor]]
) -> dict[str, StoredTensor]:
    """The tensors of all shards, after checking that each is where the index says."""
    found: dict[str, StoredTensor] = {}
    for shard, tensors in shards.items():
        for name, tensor in tensors.items():
            shown, where = plain(name, 120), plain(shard, 80)
            if name in found:
                raise InputError(
                    f"{index.parent}: tensor {shown!r} is in {where} and in {found[name].path.name}", _AGAIN
                )
            if name not in place_of:
                raise InputError(f"{index}: does not name tensor {shown!r}, which is in {where}", _AGAIN)
            found[name] = tensor
    for name, shard in place_of.items():
        if name not in found or found[name].path.name != shard:
            raise InputError(f"{index}: tensor {plain(name, 120)!r} is not in {plain(shard, 80)}", _AGAIN)
    return found


def _refuse_missing(folder: Path, names: Iterable[str]) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        shown = ", ".join(plain(name, 80) for name in missing[:_MOST_NAMED])
        raise InputError(f"{folder}: {len(missing)} of its files are missing: {shown}{more}", _remedy(folder))


def _remedy(folder: Path) -> str:
    """What to do about missing files: huggingface_hub leaves NAME.incomplete behind in one of these places."""
    places = (folder, folder / ".cache/huggingface/download", folder.resolve().parent.parent / "blobs")
    if any(next(place.glob("*.incomplete"), None) for place in places):
        return "The download is not finished: run it again"
    return _AGAIN


def _no_weights(folder: Path) -> InputError:
    names = sorted(path.name for path in folder.iterdir())
    if any(name.endswith(".incomplete") for name in names) or _remedy(folder) != _AGAIN:
        return InputError(f"{folder}: no {WEIGHTS} yet", "The download is not finished: run it again")
    if any(name.startswith("model-") and name.endswith(".safetensors") for name in names):
        return InputError(f"{folder}: parts of a model without {INDEX}", _AGAIN)
    if any(name.startswith("consolidated") for name in names):
        return InputError(
            f"{folder}: weights in Mistral's own format", f"Download {WEIGHTS} or {INDEX} with its files as well"
        )
    if any(name.endswith(_PICKLED) for name in names):
        return InputError(
            f"{folder}: weights only as pickle ({', '.join(_PICKLED)}), which can run code when it is read",
            "Use a checkpoint in safetensors; https://huggingface.co/spaces/safetensors/convert makes one",
        )
    for ending, format_name in _OTHER_FORMATS.items():
        if any(name.endswith(ending) for name in names):
            return InputError(f"{folder}: weights only for {format_name}", "Use a checkpoint in safetensors")
    return InputError(f"{folder}: {CONFIG}, but no {WEIGHTS}", _AGAIN)
