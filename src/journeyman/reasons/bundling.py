"""Why a target of `export` was not tried on this machine, or may not be deployed."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.reasons.base import Reason


@dataclass(frozen=True)
class ProgramNotTried(Reason, code="program_not_tried"):
    """`program`: the one that the target is for; journeyman does not start it."""

    says = "not tried here: journeyman does not start {program}"
    program: str


@dataclass(frozen=True)
class PackageMissing(Reason, code="package_missing"):
    says = "not tried here: the package {package} is not installed"
    package: str


@dataclass(frozen=True)
class FolderMissing(Reason, code="folder_missing"):
    """transformers loads folders only, and the base is a GGUF file."""

    says = "not tried here: transformers loads a base from a folder, and this one is the file {file}"
    file: str


@dataclass(frozen=True)
class AnswerUnknown(Reason, code="golden_answer_unknown"):
    """What was evaluated is on a server, which is not asked."""

    says = "not tried here: what was evaluated is on the server {url}, so there is no answer to compare with"
    url: str


@dataclass(frozen=True)
class MergedFile(Reason, code="merged_not_evaluated"):
    """`format`: of the merged weights."""

    says = "not evaluated: base and adapter were merged to {format}, which is another file than the one that was"
    format: str


@dataclass(frozen=True)
class OtherWeights(Reason, code="other_weights_not_evaluated"):
    says = "not evaluated: {program} computes with the weights of {base}, and those of {file} were evaluated"
    program: str
    base: str
    file: str
