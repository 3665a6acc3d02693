"""Bundles without a model, and a process that promotes and rolls back while it is killed at every step.

`python promoting.py FOLDER BUNDLE… ` runs one command per line of standard input in a child of its own and prints how
the child ended: `promote I [N]` promotes BUNDLE number I, `rollback [N]` goes back; with N, the child kills itself at
its Nth operation on files of FOLDER.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from journeyman.artifacts import hash_of_file
from journeyman.errors import JourneymanError
from journeyman.lineage import files_below, write_manifest
from journeyman.manifests import BundleManifest, Stamp
from journeyman.promotion import promote, rollback

SETTINGS = {"context": 256, "max_new_tokens": 16, "temperature": 0.0, "threads": 1, "parallel": 1}


def write_bundle(place: Path, text: str, **changes: Any) -> Path:
    """A bundle whose base is a few bytes; `changes`: fields of its manifest."""
    (place / "scripts").mkdir(parents=True)
    (place / "base.gguf").write_text(f"the weights of {text}")
    (place / "adapter.gguf").write_bytes(text.encode() * 1000)
    (place / "prompts.json").write_text("{}")
    script = place / "scripts" / "serve.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    values: dict[str, Any] = {
        "roles": ["coder"], "override": None, "base_sha256": "0", "adapter_sha256": {"all": "1"},
        "adapter_files": {"all": "adapter.gguf"}, "base_file": "base.gguf", "base_path": "b.gguf", "redact": {},
        "system_prompts": {}, "settings": SETTINGS, "verdicts": {"coder": "deploy"},
    }  # fmt: skip
    stamp = Stamp(
        stage="export", version=2, journeyman="0", fingerprint="0", inputs={}, created="now",
        files={name: hash_of_file(place / name) for name in files_below(place)},
    )  # fmt: skip
    write_manifest(place, stamp, BundleManifest.model_validate(values | changes))
    return place


def _killed_at(number: int, folder: str) -> None:
    """Kills this process at its Nth operation on files below the folder."""
    left = number

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event.split(".")[0] in ("open", "os", "shutil") and any(folder in str(one) for one in arguments):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def main() -> None:
    folder, bundles = Path(sys.argv[1]), [Path(one) for one in sys.argv[2:]]
    for line in sys.stdin:
        what, *numbers = line.split()
        child = os.fork()
        if child == 0:
            least = 1 if what == "promote" else 0
            if len(numbers) > least:
                _killed_at(int(numbers[least]), str(folder))
            try:
                promote(bundles[int(numbers[0])], folder) if what == "promote" else rollback(folder)
                os._exit(0)
            except JourneymanError as error:
                print(error, file=sys.stderr, flush=True)
                os._exit(error.exit_code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
