"""Writes the table of families in docs/bases.md: what each tiny model of tests/helpers/tiny_families.py is tested for.

    python tools/make_bases_table.py

The table is made from the tests that pytest collects, so a family is said to be proven only where a test exists.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "bases.md"
BEGIN, END = "<!-- made by tools/make_bases_table.py -->", "<!-- end -->"
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "logits, packed and streamed": (
        "models/test_families.py::test_logits_equal_transformers",
        "models/test_families.py::test_rows_in_a_pack_do_not_see_each_other",
        "models/test_families.py::test_streamed_weights_are_the_same",
    ),
    "45 training steps": (
        "training/test_families_equal_loss.py::test_training_equals_transformers_in_every_way",
        "training/test_equal_loss.py::test_loss_of_each_architecture_with_and_without_packing",
        "training/test_equal_loss.py::test_loss_of_mixtures",
        "training/test_equal_loss.py::test_loss_of_each_family",
    ),
    "served by llama.cpp": (
        "models/test_families_served.py::test_log_probabilities_equal_llama_cpp",
        "models/test_families_more.py::test_log_probabilities_equal_llama_cpp_with_and_without_an_adapter",
        "models/test_mixtures.py::test_log_probabilities_equal_llama_cpp_with_and_without_an_adapter",
        "models/test_rotary.py::test_log_probabilities_equal_llama_cpp",
    ),
    "adapter in peft": (
        "models/test_families_served.py::test_peft_computes_the_same_from_the_adapter",
        "models/test_mixtures.py::test_the_saved_adapter_is_the_same_in_peft",
        "models/test_hf_adapter.py::test_peft_loads_it_on_the_folder",
    ),
    "Hugging Face folder": (
        "models/test_hf_folder.py::test_geometry_tensors_and_logits_are_those_of_the_converted_file",
    ),
}
"""Column → the tests of which each proves it (the first: all of them)."""
ALL_OF = "logits, packed and streamed"
MODELS = {
    "llama": "Llama 2, 3, 3.1 to 3.3; TinyLlama, SmolLM2", "llama with biases": "Llama with biases",
    "qwen2": "Qwen2, Qwen2.5", "qwen3": "Qwen3", "gemma2": "Gemma 2", "gemma2, 27B": "Gemma 2 27B",
    "gemma3": "Gemma 3 270M, 1B", "gemma3, linear": "Gemma 3 4B, 12B", "gemma3, 27B": "Gemma 3 27B",
    "mistral": "Mistral, Ministral 8B", "ministral3": "Ministral 3", "phi 3": "Phi-3 4k, Phi-4",
    "phi4 mini": "Phi-3 128k, Phi-4-mini (longrope)", "smollm3": "SmolLM3", "granite": "Granite 3",
    "granite with biases": "Granite with biases", "granite 4": "Granite 4 (dense)", "olmo2": "OLMo 2",
    "olmo3": "OLMo 3", "qwen3moe": "Qwen3 MoE (30B-A3B)", "mixtral": "Mixtral", "gpt-oss": "gpt-oss",
    "granitemoe": "Granite 3 MoE", "olmoe": "OLMoE",
}  # fmt: skip


def collected() -> set[str]:
    """ "file::test[case]" of the tests in COLUMNS, below tests/."""
    files = sorted({"tests/" + name.split("::")[0] for names in COLUMNS.values() for name in names})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {line.removeprefix("tests/") for line in done.stdout.splitlines() if "::" in line}


def cases_of(test: str, found: set[str]) -> set[str]:
    """The cases of one test; a case that is one of several parameters is the part that names a family."""
    inside = {match[1] for line in found if (match := re.fullmatch(re.escape(test) + r"\[(.+)\]", line))}
    return {case for case in MODELS for text in inside if f"-{case}-" in f"-{text}-"}


def table() -> str:
    found = collected()
    rows = ["| models | " + " | ".join(COLUMNS) + " |", "| --- |" + " --- |" * len(COLUMNS)]
    for case, shown in MODELS.items():
        cells = []
        for column, tests in COLUMNS.items():
            proven = [case in cases_of(test, found) for test in tests]
            cells.append("yes" if (all if column == ALL_OF else any)(proven) else "–")
        rows.append(f"| {shown} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def page_with(made: str) -> str:
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    return f"{before}{BEGIN}\n{made}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page_with(table()), encoding="utf-8")
