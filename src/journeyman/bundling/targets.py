"""The targets of `journeyman export --target`: for each, the files that its program needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from journeyman.artifacts import clone_or_copy, hash_of_file
from journeyman.bundling.card import adapter_lines, modelfile_lines
from journeyman.bundling.docker import write_docker
from journeyman.bundling.draft import Draft
from journeyman.bundling.golden import record_merged
from journeyman.bundling.modelfiles import write_modelfiles
from journeyman.bundling.scripts import (
    LLAMA_SCRIPT,
    LMSTUDIO_SCRIPT,
    VLLM_SCRIPT,
    llama_script,
    lmstudio_script,
    vllm_script,
    write_program,
)
from journeyman.bundling.source import Source
from journeyman.bundling.trials import by_engine, by_library, by_nobody
from journeyman.errors import InputError, UsageError
from journeyman.foreign import file_part
from journeyman.inference.arms import arm_of_merged
from journeyman.inference.model_server import hash_of_peft
from journeyman.inference.server_bundle import copy_adapter
from journeyman.manifests import merged_name
from journeyman.model_files import copy_model, hash_of_model, name_of_model, parts_of
from journeyman.models.opening import open_base
from journeyman.models.quantizing import QUANTIZED
from journeyman.reasons.bundling import MergedFile, OtherWeights
from journeyman.records import EVERY_ROLE
from journeyman.training.merge import WRITABLE, merged_format, refuse_unwritable, write_merged_file
from journeyman.training.merge_folder import refuse_unmergeable, write_merged_folder

MERGED_FILE, MERGED_FOLDER = "model.gguf", "model"


@dataclass(frozen=True)
class Kind:
    """A target.

    Attributes:
        what: what is in it, for the error about a name that is no target.
        write: writes the files into the draft's folder, and tries them.
        merges: it has the adapter in the weights, so there is a folder for each adapter.
        needs: "files" for a bundle with a GGUF file, "folder" for a base that is a Hugging Face folder.
    """

    what: str
    write: Callable[[Draft], None]
    merges: bool = False
    needs: str = ""

    @property
    def other_weights(self) -> bool:
        """Its weights may be others than those that were evaluated."""
        return self.merges or self.needs == "folder"


def _adapter(draft: Draft) -> None:
    """The adapters alone, for peft and as GGUF; base.json names the base by its hash.

    The manifest names those that were evaluated: GGUF files, or peft's if a server was evaluated.
    """
    source, on_server = draft.source, draft.source.bundle.server is not None
    draft.how = "Load it with its base: `llama-server --model BASE --lora adapter.gguf`, or `peft` with the folder."
    files, hashes = {}, {}
    for name in source.bundle.adapter_files:
        in_gguf, for_peft = draft.out / f"{_file_of(name)}.gguf", draft.out / _folder_of(name)
        if source.adapter_gguf(name).is_file():  # training writes none for an architecture that only a server serves
            clone_or_copy(source.adapter_gguf(name), in_gguf)
        copy_adapter(source.trained[name], for_peft)
        files[name] = (for_peft if on_server else in_gguf).name
        hashes[name] = hash_of_peft(for_peft) if on_server else hash_of_file(in_gguf)
        if not on_server:
            base = source.place / source.bundle.base_file
            draft.trials.append(by_engine(source, draft.golden, name, base, in_gguf))
        draft.trials.append(by_library(source, draft.golden, name, source.folder, for_peft))
    draft.changes.update(base_file="", adapter_files=files, adapter_sha256=hashes)


def _folder(draft: Draft) -> None:
    """A merged Hugging Face folder."""
    source, name = draft.source, _merged(draft)
    assert source.folder is not None
    write_merged_folder(source.folder, source.trained[name], draft.out / MERGED_FOLDER)
    draft.changes.update(base_file="", adapter_files={}, server=None, **_base_of_folder(source))
    draft.merged, draft.why_not = "the folder's own format", MergedFile("the folder's own format")
    draft.how = f"Load the folder `{MERGED_FOLDER}` with transformers or vLLM."
    draft.trials.append(by_library(source, draft.golden, name, draft.out / MERGED_FOLDER, None))


def _gguf(draft: Draft) -> None:
    """A merged GGUF file."""
    _write_gguf(draft)
    write_program(llama_script(draft.bundle), draft.out / LLAMA_SCRIPT)
    draft.how = f"Load `{MERGED_FILE}` with any program for GGUF files, or run `sh {LLAMA_SCRIPT}`."


def _lmstudio(draft: Draft) -> None:
    """A merged GGUF file, and the commands that load it in LM Studio."""
    _write_gguf(draft)
    name = file_part(draft.bundle.roles[0] if len(draft.bundle.roles) == 1 else "agents")
    write_program(lmstudio_script(draft.bundle, name), draft.out / LMSTUDIO_SCRIPT)
    draft.how = f"Run `sh {LMSTUDIO_SCRIPT}`, which copies the file to LM Studio and loads it."
    draft.trials.append(by_nobody(_merged(draft), "LM Studio"))


def _write_gguf(draft: Draft) -> None:
    source, name = draft.source, _merged(draft)
    base, adapter = source.place / source.bundle.base_file, source.adapter_gguf(name)
    opened = open_base(base)
    kind = draft.quantization or merged_format(opened, adapter)
    draft.changes.update(base_file=MERGED_FILE, adapter_files={})
    draft.merged, arm, decision = kind, arm_of_merged(kind), source.results.decision
    if arm in source.results.evaluation.files:
        evaluated = source.evaluated / merged_name(kind)
        clone_or_copy(evaluated, draft.out / MERGED_FILE)
        first = source.results.evaluation.merged_into
        draft.changes |= {"base_sha256": first.sha256, "base_path": first.path}
        draft.arm, draft.changes["verdicts"] = arm, {role: decision.others[arm][role] for role in draft.bundle.roles}
        draft.golden = record_merged(draft.bundle, name, evaluated, source.renderer, source.threads)
    else:
        write_merged_file(opened, adapter, kind, draft.out / MERGED_FILE)
        draft.why_not = MergedFile(kind)
    draft.trials.append(by_engine(source, draft.golden, name, draft.out / MERGED_FILE, None))


def _llama_cpp(draft: Draft) -> None:
    """Base and adapters as they were evaluated, with a script for llama.cpp's server."""
    _copy_files(draft)
    write_program(llama_script(draft.bundle), draft.out / LLAMA_SCRIPT)
    draft.how = f"Run `sh {LLAMA_SCRIPT}`; llama-server must be on PATH."
    draft.notes += adapter_lines(draft.bundle)
    _try_files(draft)


def _ollama(draft: Draft) -> None:
    """Base and adapters as they were evaluated, with a Modelfile for each role."""
    _copy_files(draft)
    without = write_modelfiles(draft.bundle, draft.source.renderer.served_template, draft.out)
    if len(without) == len(draft.bundle.roles):
        raise InputError(f"--target ollama: {next(iter(without.values()))}", "Choose another target")
    draft.notes += modelfile_lines(draft.bundle, without)
    draft.how = "Run `ollama create NAME -f Modelfile.ROLE` in this folder."
    _try_files(draft, "ollama")


def _docker(draft: Draft) -> None:
    """Base and adapters as they were evaluated, with a Dockerfile and a compose file."""
    _copy_files(draft)
    bundle = draft.bundle
    copied = [*(one.name for one in parts_of(Path(bundle.base_file))), *bundle.adapter_files.values(), "prompts.json"]
    write_docker(bundle, [*copied, *([bundle.template_file] if bundle.template_file else [])], draft.out)
    draft.how = "Run `docker compose up --build` in this folder."
    draft.notes += adapter_lines(bundle)
    _try_files(draft, "docker")


def _vllm(draft: Draft) -> None:
    """The adapters for peft, and the command that serves them with their base's folder in vLLM."""
    source = draft.source
    files = {name: _folder_of(name) for name in source.bundle.adapter_files}
    for name, folder in files.items():
        copy_adapter(source.trained[name], draft.out / folder)
    hashes = {name: hash_of_peft(source.trained[name]) for name in files}
    draft.changes.update(base_file="", adapter_files=files, adapter_sha256=hashes, **_base_of_folder(source))
    script = vllm_script(draft.bundle, source.base.peft, source.base.peft.name, source.rank)
    write_program(script, draft.out / VLLM_SCRIPT)
    draft.how = f"Run `sh {VLLM_SCRIPT}`."
    if source.bundle.server is None:
        draft.why_not = OtherWeights("vLLM", source.base_name, name_of_model(Path(source.bundle.base_path)))
    for name, folder in files.items():
        draft.trials.append(by_library(source, draft.golden, name, source.folder, draft.out / folder))
        draft.trials.append(by_nobody(name, "vLLM"))


def _base_of_folder(source: Source) -> dict[str, str]:
    """The base's fields in the manifest of a target that is made of the folder, and not of the file that ships."""
    return {"base_sha256": source.base.sha256, "base_path": str(source.base.path)}


def _copy_files(draft: Draft) -> None:
    source = draft.source.bundle
    base = copy_model(draft.source.place / source.base_file, draft.out / source.base_file)
    if hash_of_model(base) != source.base_sha256:
        raise InputError(f"{draft.source.place}: the base changed while it was being copied", "Run it again")
    for name in source.adapter_files.values():
        clone_or_copy(draft.source.place / name, draft.out / name)


def _try_files(draft: Draft, program: str = "") -> None:
    bundle = draft.source.bundle
    for name, file in bundle.adapter_files.items():
        base = draft.out / bundle.base_file
        draft.trials.append(by_engine(draft.source, draft.golden, name, base, draft.out / file))
        draft.trials += [by_nobody(name, program)] if program else []


def _merged(draft: Draft) -> str:
    assert draft.adapter is not None
    return draft.adapter


def _file_of(name: str) -> str:
    return "adapter" if name == EVERY_ROLE else f"adapter-{file_part(name)}"


def _folder_of(name: str) -> str:
    return "peft" if name == EVERY_ROLE else f"peft-{file_part(name)}"


TARGETS: Mapping[str, Kind] = {
    "adapter": Kind("the adapter alone, for peft and as GGUF", _adapter),
    "hf": Kind("a merged Hugging Face folder", _folder, merges=True, needs="folder"),
    "gguf": Kind("a merged GGUF file", _gguf, merges=True, needs="files"),
    "ollama": Kind("base, adapters and Modelfiles", _ollama, needs="files"),
    "llama.cpp": Kind("base, adapters and a script for llama-server", _llama_cpp, needs="files"),
    "vllm": Kind("the adapters and a script for vLLM", _vllm, needs="folder"),
    "lmstudio": Kind("a merged GGUF file and a script for LM Studio", _lmstudio, merges=True, needs="files"),
    "docker": Kind("base, adapters, Dockerfile and compose file", _docker, needs="files"),
}
"""Name → target."""


def refuse_impossible(source: Source, names: Sequence[str]) -> None:
    """Refuses targets that this run cannot have, before anything is made.

    Raises:
        InputError: base or bundle lack what a target needs.
    """
    for name in names:
        needs = TARGETS[name].needs
        if needs == "folder" and source.folder is None:
            raise InputError(
                f"--target {name}: needs the base's Hugging Face folder, and base.model is the file {source.base_name}",
                "Train on the folder, or choose another target",
            )
        if needs == "files" and source.bundle.server is not None:
            raise InputError(
                f"--target {name}: needs a GGUF file of the base, and what ships is on {source.bundle.server.url}",
                "Choose adapter, hf or vllm, or set evaluate.quantizations",
            )
        if name == "hf" and source.folder is not None:
            refuse_unmergeable(source.folder)


def check_names(targets: Sequence[str], quantization: str | None) -> None:
    """Refuses flags before anything runs.

    Raises:
        InputError: the format cannot be written on this machine.
        UsageError: there is no such target or format, or the format has no effect.
    """
    for name in targets:
        if name not in TARGETS:
            listed = [f"{one}: {kind.what}" for one, kind in TARGETS.items()]
            raise UsageError(f"--target {name!r}: no such target", f"One of: {', '.join(TARGETS)}", listed)
    formats = sorted({*WRITABLE, *QUANTIZED})
    if quantization is not None and quantization not in formats:
        raise UsageError(f"--quantization {quantization!r}: no such format", f"One of: {', '.join(formats)}")
    if quantization is not None:
        refuse_unwritable(quantization)
    if quantization is not None and not {"gguf", "lmstudio"} & set(targets):
        raise UsageError("--quantization: no effect without --target gguf or lmstudio", "Leave it out")
