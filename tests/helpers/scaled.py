"""Rotary scalings of the tiny models: what the GGUF file says, and the same for transformers.

The tiny models have 4 frequencies, whose wavelengths are 6.3, 63, 628 and 6283 tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import gguf
import numpy as np
from gguf import RopeScalingType

ORIGINAL = 64
"""The context before scaling: with YaRN, the first frequency is kept, the second is interpolated, two are divided."""
Extend = Callable[[gguf.GGUFWriter], None]


def _llama3(writer: gguf.GGUFWriter) -> None:
    """Frequencies of wavelengths below 64 / 4 are kept, above 64 / 1 divided by 8, and interpolated in between."""
    wavelengths = 2 * math.pi * 10000.0 ** (np.arange(4) / 4)
    share = np.clip((ORIGINAL / wavelengths - 1.0) / (4.0 - 1.0), 0, 1)
    writer.add_tensor("rope_freqs.weight", (1 / ((1 - share) / 8.0 + share)).astype(np.float32))


def _linear(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_type(RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(4.0)


def _linear_without_type(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_factor(4.0)


def _linear_of_old_files(writer: gguf.GGUFWriter) -> None:
    writer.add_float32(f"{writer.arch}.rope.scale_linear", 4.0)


def _no_type(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_type(RopeScalingType.NONE)
    writer.add_rope_scaling_factor(4.0)


def _yarn(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_type(RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(ORIGINAL)


def _yarn_without_context(writer: gguf.GGUFWriter) -> None:
    """The context before scaling is the model's, 512; the other settings have the values of llama.cpp."""
    writer.add_rope_scaling_type(RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_yarn_beta_fast(32.0)
    writer.add_rope_scaling_yarn_beta_slow(1.0)
    writer.add_rope_scaling_yarn_ext_factor(1.0)
    writer.add_rope_scaling_yarn_attn_factor(1.0 + 0.1 * math.log(4.0))
    writer.add_rope_scaling_finetuned(True)


def _yarn_with_amplitude(writer: gguf.GGUFWriter) -> None:
    _yarn(writer)
    writer.add_rope_scaling_attn_factors(0.8)


SHORT, LONG, LONG_ABOVE = (1.0, 1.2, 1.5, 2.0), (1.0, 3.0, 7.0, 20.0), 256
"""Factors of LongRoPE; 256 tokens is the least context that llama.cpp gives to a request."""


def longrope(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_type(RopeScalingType.LONGROPE)
    writer.add_rope_scaling_orig_ctx_len(LONG_ABOVE)
    writer.add_rope_scaling_attn_factors(1.1)
    writer.add_tensor("rope_factors_short.weight", np.array(SHORT, np.float32))
    writer.add_tensor("rope_factors_long.weight", np.array(LONG, np.float32))


_LINEAR = {"rope_type": "linear", "factor": 4.0}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL}
_LONGROPE = {
    "rope_type": "longrope", "short_factor": list(SHORT), "long_factor": list(LONG), "attention_factor": 1.1,
    "original_max_position_embeddings": LONG_ABOVE,
}  # fmt: skip
ONLY_LLAMA = ("llama3", "longrope")
"""Scalings with tensors that llama.cpp reads for few families."""
SCALINGS: Mapping[str, tuple[Extend, dict[str, Any]]] = {
    "llama3": (
        _llama3,
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": ORIGINAL},
    ),
    "linear": (_linear, _LINEAR),
    "linear without a type": (_linear_without_type, _LINEAR),
    "linear of old files": (_linear_of_old_files, _LINEAR),
    "none with a factor": (_no_type, {"rope_type": "default"}),
    "longrope": (longrope, _LONGROPE),
    "yarn": (_yarn, _YARN),
    "yarn without a context": (_yarn_without_context, {**_YARN, "original_max_position_embeddings": 512}),
    "yarn with an amplitude": (_yarn_with_amplitude, {**_YARN, "attention_factor": 0.8 * (1 + 0.1 * math.log(4.0))}),
}  # fmt: skip
"""Name → what adds it to a GGUF file, and `rope_parameters` of transformers without the base."""
