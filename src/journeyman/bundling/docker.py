"""A container with a bundle's files and llama.cpp's server."""

from __future__ import annotations

import json
from pathlib import Path

from journeyman.artifacts import write_atomic
from journeyman.bundling.scripts import adapter_hint, llama_arguments
from journeyman.manifests import BundleManifest

IMAGE = "ghcr.io/ggml-org/llama.cpp:server"
"""llama.cpp's own image: its entry point is the server, which listens on every address of the container."""
_HOW = "docker compose up --build; clients ask http://127.0.0.1:8080/v1 and send the system prompts in prompts.json."
_COMPOSE = """\
services:
  model:
    build: .
    ports: ["127.0.0.1:8080:8080"]
    read_only: true
    tmpfs: ["/tmp"]
    cap_drop: ["ALL"]
    security_opt: ["no-new-privileges:true"]
    restart: unless-stopped
"""


def write_docker(bundle: BundleManifest, files: list[str], out: Path) -> None:
    """Writes Dockerfile and compose.yaml next to the files, which go into the image.

    Source of the syntax: https://docs.docker.com/reference/dockerfile (the forms of COPY and CMD that are JSON arrays).
    """
    arguments = [*llama_arguments(bundle), "--host", "0.0.0.0", "--port", "8080"]
    lines = [
        "# llama.cpp's server with the files of this folder. To use the image that was tried, name it by its digest:",
        "# docker build --build-arg IMAGE=ghcr.io/ggml-org/llama.cpp@sha256:...",
        f"ARG IMAGE={IMAGE}",
        "FROM ${IMAGE}",
        f"COPY {json.dumps([*files, '/bundle/'])}",
        "WORKDIR /bundle",
        "EXPOSE 8080",
        f"CMD {json.dumps(arguments)}",
    ]
    write_atomic(out / "Dockerfile", ("\n".join(lines) + "\n").encode())
    write_atomic(
        out / "compose.yaml", ("".join(f"# {line}\n" for line in (_HOW, *adapter_hint(bundle))) + _COMPOSE).encode()
    )
