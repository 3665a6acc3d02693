"""The process that converts a Hugging Face folder: `python -m journeyman.models.conversion_process`.

It reads its job as one JSON line from standard input and runs llama.cpp's convert_hf_to_gguf.py. It ends at once when
its input closes, so that it never outlives the process that started it.

The script loads tokenizers through `transformers` and allows code from the folder to run (trust_remote_code). Here it
is not allowed to. The script recognizes a pre-tokenizer by the ids that it makes of a text, so it refuses the tokenizer
of a fine-tuned model with one more token; in that case it takes the name that journeyman found. Before evaluation, the
ids of every prompt are compared with those of the engine.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import threading
from typing import Any


def main() -> None:
    """Converts; the script exits with an error code if it cannot."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.path[:0] = [job["scripts"], f"{job['scripts']}/gguf-py"]
    _run_no_code_of_the_folder()
    if job["split"]:
        _name_unknown_pre_tokenizer(job["split"])
    script = f"{job['scripts']}/convert_hf_to_gguf.py"
    sys.argv = [
        script, job["folder"], "--outfile", job["out"], "--outtype", job["type"], "--model-name", job["name"],
    ]  # fmt: skip
    runpy.run_path(script, run_name="__main__")


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


def _run_no_code_of_the_folder() -> None:
    import transformers

    for loader in (transformers.AutoTokenizer, transformers.AutoConfig, transformers.AutoModel):
        load = loader.from_pretrained

        def without(*args: Any, load: Any = load, **kwargs: Any) -> Any:
            return load(*args, **{**kwargs, "trust_remote_code": False})

        loader.from_pretrained = without


def _name_unknown_pre_tokenizer(split: str) -> None:
    from conversion.base import TextModel

    recognize = TextModel.get_vocab_base_pre

    def or_given(self: Any, tokenizer: Any) -> Any:
        try:
            return recognize(self, tokenizer)
        except NotImplementedError:
            return split

    TextModel.get_vocab_base_pre = or_given


if __name__ == "__main__":
    main()
