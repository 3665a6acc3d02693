"""Which files of a repo a name means.

Without a quantization or a file, it means the original weights if the repo has them as safetensors, otherwise the only
model among its .gguf files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.model_files import CONFIG, INDEX, WEIGHTS, first_part, parts_of
from journeyman.models.checkpoint_files import has_safetensors, is_beside, shards_in
from journeyman.models.finding import models_among
from journeyman.models.names import ModelName
from journeyman.models.pins import HubFile

_MOST_NAMED = 12
Files = Mapping[str, HubFile]


def chosen(name: ModelName, page: str, files: Files, read: Callable[[HubFile], bytes]) -> tuple[bool, list[HubFile]]:
    """Whether the name means the folder of original weights, and the files, the first part of a split model first.

    Args:
        page: the URL of the repo's page.
        files: all files of the repo, by name.
        read: returns the content of a small file.

    Raises:
        InputError: no file has this name, several could be meant, or parts are missing.
    """
    if name.whole_repo and has_safetensors(files):
        return True, _folder(name, page, files, read)
    return False, _gguf(name, page, files)


def _folder(name: ModelName, page: str, files: Files, read: Callable[[HubFile], bytes]) -> list[HubFile]:
    where = f"base.model: {name.repo_id}"
    if CONFIG not in files:
        kind = "an adapter" if "adapter_config.json" in files else "safetensors without config.json"
        raise InputError(f"{where}: contains {kind}, not a model", "Name the repo of the model that it was made from")
    if WEIGHTS in files:
        weights = [WEIGHTS]
    elif INDEX in files:
        weights = [*shards_in(read(files[INDEX]), where), INDEX]
    else:
        raise InputError(
            f"{where}: contains safetensors, but neither {WEIGHTS} nor {INDEX}",
            f"Name another revision or repo with the layout of transformers; see {page}",
        )
    if missing := [one for one in weights if one not in files]:
        raise InputError(
            f"{where}: {plain(missing[0], 160)} is missing in the repo, and {INDEX} names it", f"See {page}"
        )
    return [files[one] for one in weights] + [files[one] for one in sorted(files) if is_beside(one)]


def _gguf(name: ModelName, page: str, files: Files) -> list[HubFile]:
    where = f"base.model: {name.repo_id}"
    paths = [Path(one) for one in files if one.endswith(".gguf")]
    models = models_among(paths)
    if name.file and (asked := Path(name.file)) in paths:
        taken = [asked]
        if first_part(asked) != asked:
            raise InputError(
                f"{where}: {name.file} is a later part of a split model", f"Name its first part: {first_part(asked)}"
            )
    else:
        taken = [one for one in models if name.takes(one.as_posix())]
    if len(taken) != 1:
        raise _unclear(where, name, page, files, taken or models, bool(taken))
    parts = [part.as_posix() for part in parts_of(taken[0])]
    if missing := [one for one in parts if one not in files]:
        raise InputError(f"{where}: {plain(missing[0], 160)} is missing in the repo", f"Name another file; see {page}")
    return [files[one] for one in parts]


def _unclear(where: str, name: ModelName, page: str, files: Files, models: Sequence[Path], several: bool) -> InputError:
    example = f"{name.repo_id}{'@' + name.revision if name.revision else ''}"
    if not models:
        other = sorted(
            {Path(one).suffix for one in files if Path(one).suffix in (".bin", ".pth", ".onnx", ".safetensors")}
        )
        found = f"; it contains {' and '.join(other)} files" if other else ""
        return InputError(
            f"{where}: contains no .gguf file{'' if not name.whole_repo else ' and no safetensors'}{found}",
            f"Name another repo, or leave out the quantization; see {page}" if not name.whole_repo else f"See {page}",
        )
    shown = ", ".join(f"{plain(one.as_posix(), 160)} ({_size(one, files)})" for one in models[:_MOST_NAMED])
    more = f" and {len(models) - _MOST_NAMED} more" if len(models) > _MOST_NAMED else ""
    if several:
        return InputError(
            f"{where}: {len(models)} models could be meant: {shown}{more}",
            f"Name one: {example}/{plain(models[0].as_posix())}",
        )
    asked = name.file or f"quantization {name.tag}"
    return InputError(
        f"{where}: has no {asked}; it has {shown}{more}", f"Name one: {example}/{plain(models[0].as_posix())}"
    )


def _size(model: Path, files: Files) -> str:
    parts = [files.get(part.as_posix()) for part in parts_of(model)]
    return "incomplete" if None in parts else f"{sum(part.size for part in parts if part is not None) / 1e9:.2f} GB"
