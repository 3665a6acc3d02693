"""A Hugging Face folder as `transformers` computes it: its sizes, without any weights, and the model itself.

The packages `transformers` and `peft` are optional. They are loaded on first use, and only code that they contain is
run: nothing from the folder, and nothing from the hub.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.targets import adapted_names

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

INSTALL = "Run: pip install 'journeyman[transformers]'"
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True)
class ModelSizes:
    """The sizes.Sizes of an architecture that only `transformers` computes.

    Attributes:
        architecture: the name of the class in `transformers`.
        parts: modules that keep their input for the backward pass: the sum of their widths, in elements per token.
        linear: full name of each linear layer that an adapter may change → (out_features, in_features).
    """

    architecture: str
    parameters: int
    linear_parameters: int
    layers: int
    hidden: int
    vocab: int
    context: int
    ffn: int
    cache_width: int
    kept_width: int
    linear: Mapping[str, tuple[int, int]]

    def adapted_shapes(self, targets: Sequence[str]) -> Sequence[tuple[int, int]]:
        return [self.linear[name] for name in adapted_names(list(self.linear), targets)]


def require_library() -> None:
    """Loads `transformers` and `peft`.

    Raises:
        InputError: one of them is not installed.
    """
    os.environ["USE_HUB_KERNELS"] = "0"  # transformers reads it when it is imported
    try:
        import peft  # noqa: F401
        import transformers
    except ImportError as error:
        raise InputError(f"training this base needs a package that is not installed: {error.name}", INSTALL) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


@contextmanager
def offline() -> Iterator[None]:
    """Nothing in the block may use the hub: a missing file is an error, not a download."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def model_sizes(folder: Path) -> ModelSizes:
    """The sizes of the model in a folder, from its config alone.

    Raises:
        InputError: a package is missing, or `transformers` cannot build a model from the config.
    """
    config = _config(folder)
    try:
        with offline(), torch.device("meta"):
            from transformers import AutoModelForCausalLM

            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # a config with impossible values fails anywhere in the library
        raise _unusable(folder, error) from error
    return _sizes_of(model)


def load_model(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The model with its weights, for inference: no parameter needs a gradient.

    Raises:
        InputError: a package is missing, or the weights are not those of the model that the config describes.
    """
    config = _config(folder)
    try:
        with offline():
            from transformers import AutoModelForCausalLM

            model, loaded = AutoModelForCausalLM.from_pretrained(
                folder, config=config, dtype=dtype, local_files_only=True, trust_remote_code=False,
                use_safetensors=True, output_loading_info=True,
            )  # fmt: skip
    except Exception as error:  # unreadable files, shapes that differ, too little memory
        raise _unusable(folder, error) from error
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys", "error_msgs"):
        if found := sorted(map(str, loaded.get(what, ()))):
            raise InputError(
                f"{folder}: the weights do not fit config.json: {what.replace('_', ' ')} {plain(', '.join(found)[:200])}",
                "Use a complete, unmodified folder of one model",
            )
    return model.eval().requires_grad_(False)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The decoder's layers, in order; empty if `transformers` does not mark them in this architecture."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def _config(folder: Path) -> PretrainedConfig:
    require_library()
    try:
        with offline():
            from transformers import AutoConfig

            return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: Exception) -> InputError:
    detail = plain(str(error)).strip().splitlines()[:1] or [type(error).__name__]
    return InputError(f"{folder}: transformers cannot load it: {detail[0][:300]}", "Use another base")


def _sizes_of(model: PreTrainedModel) -> ModelSizes:
    config = model.config
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    head = model.get_output_embeddings()
    in_blocks = {id(module) for block in blocks_of(model) for module in block.modules()}
    matrices = {id(module.weight): module.weight.numel() for module in linear.values()}
    experts = next((n for key in _EXPERTS if (n := getattr(config, key, None))), None)
    active = min(1.0, (getattr(config, "num_experts_per_tok", None) or experts) / experts) if experts else 1.0
    # The experts of a mixture are parameters with three dimensions, of which a token uses only some.
    several = sum(p.numel() for p in model.parameters() if p.ndim == 3)
    adaptable = {
        name: (module.out_features, module.in_features)
        for name, module in linear.items()
        if id(module) in in_blocks and module is not head
    }
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return ModelSizes(
        architecture=type(model).__name__,
        parameters=sum(p.numel() for p in model.parameters()),
        linear_parameters=sum(matrices.values()) + int(several * active),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        vocab=config.vocab_size,
        context=config.max_position_embeddings,
        ffn=max((rows for rows, _ in adaptable.values()), default=config.hidden_size),
        cache_width=2 * config.num_hidden_layers * heads * head_dim,
        kept_width=sum(rows + columns for rows, columns in adaptable.values()),
        linear=adaptable,
    )
