"""What each node of a cluster has, and the check that all have what this machine has, before any work starts."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import journeyman
from journeyman.errors import UsageError

_ANSWER_S = 120.0
_PACKAGES = (
    "torch", "numpy", "tokenizers", "xllamacpp", "gguf", "safetensors", "transformers", "peft",
    "rensa", "kingfisher-secret-scanner", "jinja2", "jsonschema", "pydantic", "zstandard",
)  # fmt: skip
"""Packages that compute what is in results: the model, what rules, redaction and rendering find in rows, the bytes of
compressed rows."""
_LEAST_DISK, _LEAST_MEMORY = 1 << 30, 1 << 30


Software = Mapping[str, str]
"""What decides results → its version."""


@dataclass(frozen=True)
class Node:
    """One node.

    Attributes:
        name: its host name, with its address in the cluster.
        disk, memory: free bytes; the disk is that of temporary files.
    """

    name: str
    software: Software
    disk: int
    memory: int
    cpus: int
    gpus: int


@cache
def software_here() -> Software:
    """Of this process, found out once: versions, and the hash of journeyman's own files, as checkouts may differ."""
    return {
        "journeyman": journeyman.__version__,
        "journeyman's files with hash": _source(Path(journeyman.__file__).parent),
        "Python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def check_nodes() -> list[Node]:
    """All living nodes.

    Raises:
        UsageError: names a node that cannot be asked, has other versions, or has no room.
    """
    infos = living_nodes()
    look = ray.remote(num_cpus=0, max_retries=1)(_look)
    asked = [(one, look.options(scheduling_strategy=on_node(one["NodeID"])).remote()) for one in infos]
    nodes = [_answer(info, reference) for info, reference in asked]
    here = software_here()
    for node in nodes:
        refuse_other(node, here)
    return nodes


def refuse_other(node: Node, here: Software) -> None:
    """Raises a UsageError if a node has other versions than this process, or hardly any disk or memory."""
    refuse_other_software(node.name, node.software, here)
    for what, free, least in (("disk space", node.disk, _LEAST_DISK), ("memory", node.memory, _LEAST_MEMORY)):
        if free < least:
            raise UsageError(
                f"node {node.name} has {free / 1e9:.2f} GB of free {what}, and {least / 1e9:.1f} GB are needed",
                "Free some there, or take the node out of the cluster: ray stop",
            )


def refuse_other_software(name: str, found: Software, here: Software) -> None:
    """Raises a UsageError if the node has other software than the process that sends the work."""
    different = [
        f"{what} {found.get(what)} instead of {version}" for what, version in here.items() if found.get(what) != version
    ]
    if different:
        raise UsageError(
            f"node {name} has {', '.join(different)}", "Install the same versions on all nodes of the cluster"
        )


def living_nodes() -> list[Mapping[str, Any]]:
    """The nodes of the cluster that are alive, as Ray describes them."""
    return [one for one in ray.nodes() if one["Alive"]]


def name_of(info: Mapping[str, Any]) -> str:
    """A node's name for the user: its host name, with its address in the cluster."""
    return f"{info['NodeManagerHostname']} ({info['NodeManagerAddress']})"


def on_node(node: str) -> NodeAffinitySchedulingStrategy:
    """Lets a task or an actor run on the node with this id, and nowhere else."""
    return NodeAffinitySchedulingStrategy(node, soft=False)


def _answer(info: Mapping[str, Any], reference: Any) -> Node:
    name = name_of(info)
    try:
        software, disk, memory = ray.get(reference, timeout=_ANSWER_S)
    except RayTaskError as error:
        raise UsageError(
            f"node {name}: {error.cause}", "Install journeyman there, in the environment in which Ray runs"
        ) from error
    except RayError as error:
        raise UsageError(f"node {name} does not answer: {first_line(error)}", "Look at: ray status") from error
    resources = info["Resources"]
    return Node(name, software, disk, memory, int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))


def _look() -> tuple[Software, int, int]:
    return software_here(), shutil.disk_usage(tempfile.gettempdir()).free, psutil.virtual_memory().available


def _source(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        digest.update(f"{path.relative_to(folder).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def first_line(error: Exception) -> str:
    """Of what an error of Ray says, which may have many lines."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def summary(nodes: Sequence[Node]) -> str:
    """For the user: one line."""
    gpus = sum(node.gpus for node in nodes)
    cards = f", {gpus} GPUs" if gpus else ""
    return f"Ray: {len(nodes)} nodes, {sum(node.cpus for node in nodes)} CPUs{cards}"
