"""A program that stands in for the user's llama-server: the engine in the wheel behind llama-server's arguments."""

from __future__ import annotations

import sys
from pathlib import Path

_PROGRAM = """#!{python}
import argparse, json, os, sys, time
if sys.argv[1:] == ["--version"]:
    sys.exit("version: {version} (abc1234)\\nbuilt with a script for tests")
if sys.argv[1:] == ["--list-devices"]:
    print("Available devices:\\n  CUDA0: A GPU of tests (1000 MiB, 900 MiB free)")
    sys.exit()
sys.path[:0] = {path!r}
from journeyman.inference.engine import started
read = argparse.ArgumentParser()
for name in ("host", "port", "model", "ctx-size", "parallel", "threads", "threads-batch", "threads-http"):
    read.add_argument("--" + name, required=True)
read.add_argument("--lora", action="append", default=[])
read.add_argument("--chat-template-kwargs", default="{{}}")
for name in ("lora-init-without-apply", "jinja", "metrics", "no-slots", "no-webui"):
    read.add_argument("--" + name, action="store_true", required=True)
got = read.parse_args()
parallel = int(got.parallel)
server = started({{
    "base": got.model, "adapters": got.lora, "context": int(got.ctx_size) // parallel, "parallel": parallel,
    "threads": int(got.threads), "key": os.environ["LLAMA_API_KEY"],
    "chat_template": os.environ.get("LLAMA_ARG_CHAT_TEMPLATE"),
    "template_variables": json.loads(got.chat_template_kwargs),
}})
while True:
    time.sleep(60)
"""


def write_llama_server(path: Path, version: str = "7777") -> Path:
    """Writes the program; another version is another file."""
    path.write_text(_PROGRAM.format(python=sys.executable, path=sys.path, version=version))
    path.chmod(0o755)
    return path
