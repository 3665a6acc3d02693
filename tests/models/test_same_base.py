"""Two files of the same base are told from those of another, however it was made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from conftest import write_tiny_gguf
from journeyman.errors import InputError
from journeyman.models.base import TokenizerData
from journeyman.models.gguf_file import GgufFile
from journeyman.models.same_base import same_base
from journeyman.models.same_tokenizer import different_token, padded_from
from rewritten import Change, rewritten
from scaled import SCALINGS

KINDS = [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q5_0, Kind.Q5_1, Kind.Q4_0, Kind.Q4_1, Kind.MXFP4]
MATRIX = "blk.1.ffn_down.weight"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    """Of a size with which each tensor has thousands of numbers; matrices in bfloat16, as they are published."""
    folder = tmp_path_factory.mktemp("same")
    wide = GgufFile(write_tiny_gguf(folder / "wide.gguf", kind=Kind.Q8_0))
    return rewritten(wide, folder / "original.gguf", Kind.BF16, noise(1.0))


def noise(share: float, *only: str, seed: int = 0) -> Change:
    """Moves every matrix, or these, by Gaussian noise of this share of its size; vectors stay."""

    def change(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if values.ndim == 1 or (only and name not in only):
            return values
        rng = np.random.default_rng([seed, *name.encode()])
        moved = values + share * values.std() * rng.standard_normal(values.shape)
        return np.asarray(moved, np.float32)

    return change


def merged(share: float) -> Change:
    """A merged adapter of rank 4 in the matrices of attention and feed-forward."""

    def change(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if values.ndim == 1 or not name.startswith("blk."):
            return values
        rng = np.random.default_rng(list(name.encode()))
        rows, columns = values.shape
        update = rng.standard_normal((rows, 4)) @ rng.standard_normal((4, columns))
        return np.asarray(values + share * values.std() / update.std() * update, np.float32)

    return change


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_format_of_the_same_base_is_the_same(kind: Kind, original: GgufFile, tmp_path: Path) -> None:
    served = rewritten(original, tmp_path / "m.gguf", kind)
    same_base(original, served)
    same_base(served, original)


@pytest.mark.parametrize("kind", [Kind.F16, Kind.Q8_0, Kind.Q4_0, Kind.MXFP4], ids=lambda kind: kind.name)
def test_two_formats_of_the_same_base_are_the_same(kind: Kind, original: GgufFile, tmp_path: Path) -> None:
    trained = rewritten(original, tmp_path / "trained.gguf", Kind.Q4_1)
    served = rewritten(original, tmp_path / "served.gguf", kind)
    same_base(trained, served)
    same_base(served, trained)


def refused(trained: GgufFile, served: GgufFile, why: str) -> None:
    with pytest.raises(InputError, match=why) as raised:
        same_base(trained, served)
    assert f"{served.path}: not a file of the base {trained.path.name}" in raised.value.what


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_base_that_was_tuned_is_another(kind: Kind, original: GgufFile, tmp_path: Path) -> None:
    """By 0.5 % of its weights, as little as a short training changes; a merged adapter of that size."""
    for number, change in enumerate((noise(0.005), merged(0.005))):
        tuned = rewritten(original, tmp_path / f"{number}.gguf", Kind.BF16, change)
        refused(
            original, rewritten(tuned, tmp_path / f"{number}-{kind.name}.gguf", kind), "differ by more than rounding"
        )


@pytest.mark.parametrize("kind", [Kind.BF16, Kind.Q8_0, Kind.Q4_0], ids=lambda kind: kind.name)
def test_other_weights_are_another_base(kind: Kind, original: GgufFile, tmp_path: Path) -> None:
    changed = rewritten(original, tmp_path / "one.gguf", kind, noise(0.02, MATRIX))
    refused(original, changed, re.escape(MATRIX))
    layers = {name: name.replace("blk.0.", "blk.1.") if "blk.0." in name else name.replace("blk.1.", "blk.0.")
              for name in original.tensors}  # fmt: skip
    refused(original, rewritten(original, tmp_path / "layers.gguf", kind, order=layers), r"blk\.0\.")
    swapped = {"blk.0.ffn_gate.weight": "blk.0.ffn_up.weight", "blk.0.ffn_up.weight": "blk.0.ffn_gate.weight"}
    refused(original, rewritten(original, tmp_path / "swapped.gguf", kind, order=swapped), r"blk\.0\.ffn")
    rolled = rewritten(original, tmp_path / "rows.gguf", kind, lambda n, v: np.roll(v, 1, 0) if n == MATRIX else v)
    refused(original, rolled, re.escape(MATRIX))
    refused(original, rewritten(original, tmp_path / "seed.gguf", kind, noise(1.0, seed=5)), "token_embd")


def test_one_changed_number_of_a_norm_is_found(original: GgufFile, tmp_path: Path) -> None:
    def change(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if name == "blk.1.ffn_norm.weight":
            values[100] = np.nextafter(values[100], 2, dtype=np.float32)
        return values

    refused(
        original, rewritten(original, tmp_path / "m.gguf", Kind.Q4_0, change), r"1 of 256 weights of blk\.1\.ffn_norm"
    )


def test_weights_of_zero_prove_nothing(original: GgufFile, tmp_path: Path) -> None:
    """A block with a scale of 0 could stand for anything."""
    zeros: Change = lambda name, values: values * 0 if name == MATRIX else values  # noqa: E731
    for kind in (Kind.Q4_0, Kind.Q8_0):
        refused(original, rewritten(original, tmp_path / f"{kind.name}.gguf", kind, zeros), "differs by 100.0%")


def test_with_an_importance_matrix_the_error_decides(original: GgufFile, tmp_path: Path) -> None:
    tuned = rewritten(original, tmp_path / "tuned.gguf", Kind.Q4_0, noise(0.01))
    refused(original, tuned, "differ by more than rounding")
    served = GgufFile(tuned.path)
    served.metadata = {**served.metadata, "quantize.imatrix.file": "i.dat"}
    same_base(original, served)
    other = GgufFile(rewritten(original, tmp_path / "other.gguf", Kind.Q4_0, noise(0.4)).path)
    other.metadata = served.metadata
    refused(original, other, r"differs by 4\d\.\d%, more than the 24\.0% of Q4_0")


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"llama.rope.freq_base": 20000.0}, "different rope_theta"),
        ({"llama.attention.layer_norm_rms_epsilon": 1e-6}, "different rms_eps"),
        ({"tokenizer.ggml.eos_token_id": 1}, "different tokenizers: end_id is 1, not 2"),
        ({"tokenizer.ggml.add_bos_token": True}, "adds_begin is True, not False"),
        ({"tokenizer.ggml.merges": ["h t"]}, r"merges\[0\] is 'h t', not 't h'"),
    ],
)
def test_other_settings_are_another_base(keys: Mapping[str, Any], why: str, original: GgufFile, tmp_path: Path) -> None:
    refused(original, rewritten(original, tmp_path / "m.gguf", Kind.BF16, keys=keys), why)


def test_another_order_of_tokens_is_another_base(original: GgufFile, tmp_path: Path) -> None:
    tokens = list(original.tokenizer.tokens or ())
    tokens[100], tokens[101] = tokens[101], tokens[100]
    changed = rewritten(original, tmp_path / "m.gguf", Kind.BF16, keys={"tokenizer.ggml.tokens": tokens})
    refused(original, changed, r"different tokenizers: tokens\[100\] is '.*', not '.*'")


def test_what_changes_no_result_is_not_compared(original: GgufFile, tmp_path: Path) -> None:
    keys = {"tokenizer.chat_template": "{{ messages }}", "general.name": "x", "llama.context_length": 4096}
    same_base(original, rewritten(original, tmp_path / "m.gguf", Kind.Q8_0, keys=keys))


def test_a_scaling_makes_another_base(tmp_path: Path) -> None:
    plain = GgufFile(write_tiny_gguf(tmp_path / "plain.gguf"))
    refused(plain, GgufFile(write_tiny_gguf(tmp_path / "scaled.gguf", extend=SCALINGS["yarn"][0])), "different rotary")


DATA = TokenizerData(
    "llama", "", ["<s>", "a", "b", "[PAD3]", "[PAD4]"], [3, 1, 1, 5, 5], None, scores=[0.0, -1.0, -2.0, 0.0, 0.0]
)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"tokens": ["<s>", "a", "b"], "types": [3, 1, 1], "scores": [0.0, -1.0, -2.0]}, None),
        ({"scores": [0.0, -1.0 - 1e-9, -2.0, 7.0, 8.0]}, None),
        ({"chat_template": "x", "model_name": "y", "more_end_ids": (4,)}, None),
        ({"tokens": ["<s>", "a", "b", "c", "[PAD4]"], "types": [3, 1, 1, 1, 5]}, r"tokens[3] is 'c', not '[PAD3]'"),
        ({"types": [3, 1, 4, 5, 5]}, "types[2] is 4, not 1"),
        ({"scores": [0.0, -1.0, -2.5, 0.0, 0.0]}, "scores[2] is -2.5, not -2.0"),
        ({"scores": None}, "scores is None, not 3 entries"),
        ({"kind": "gpt2"}, "kind is 'gpt2', not 'llama'"),
        ({"tokens": ["<s>", "a\x1b"], "types": [3, 1]}, "tokens[1] is 'a\\x1b', not 'a'"),
        ({"tokens": ["<s>", "a"], "types": [3, 1]}, "2 tokens, not 3"),
        ({"adds_space": True}, "adds_space is True, not False"),
        ({"begin_id": 0}, "begin_id is 0, not None"),
    ],
)
def test_the_first_different_token_is_named(change: dict[str, Any], why: str | None) -> None:
    assert different_token(DATA, replace(DATA, **change)) == why


def test_padding_is_what_only_fills_the_embedding() -> None:
    assert padded_from(DATA) == 3
    assert padded_from(replace(DATA, tokens=None)) == 0
    assert padded_from(replace(DATA, types=[3, 1, 1, 5, 1])) == 3, "written as [PAD4] by llama.cpp's script"
