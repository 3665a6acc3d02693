"""A Hugging Face folder of a tiny random model that can chat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_families import save_folder, transformers_model

TEMPLATE = (
    "{% for message in messages %}{{ '<|begin|>' + message['role'] + '\n' + message['content'] + '<|end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|begin|>assistant\n' }}{% endif %}"
)


def chat_folder(folder: Path, case: str = "qwen3", seed: int = 0, dtype: str = "float32", **changes: Any) -> Path:
    """Writes the folder; `case` is one of tiny_families.FAMILIES, `dtype` that of the stored weights."""
    import torch

    save_folder(transformers_model(case, seed, **changes).to(getattr(torch, dtype)), folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": TEMPLATE}))
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["th"] = len(tokenizer["model"]["vocab"])
    tokenizer["model"]["merges"] = [["t", "h"]]  # llama.cpp loads no byte-level BPE without merges
    path.write_text(json.dumps(tokenizer))
    return folder
