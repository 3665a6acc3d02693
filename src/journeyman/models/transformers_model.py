"""A Hugging Face folder as `transformers` computes it: its sizes, without any weights, and the model itself.

The packages `transformers` and `peft` are optional. They are loaded on first use, and only code that they contain is
run: nothing from the folder, and nothing from the hub.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.sizes import ModelSizes
from journeyman.models.targets import short_names

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

INSTALL = "Run: pip install 'journeyman[transformers]'"
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


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


def is_kind_of_model(model_type: str) -> bool:
    """Whether `transformers` has the code of a kind of model (`model_type` in config.json).

    Raises:
        InputError: a package is missing.
    """
    require_library()
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return model_type in CONFIG_MAPPING_NAMES


def written_by(model_type: str) -> tuple[str, ...]:
    """The classes of `transformers` that continue a text with a model of this kind; none for an encoder, say."""
    require_library()
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    found = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type, ())
    return (found,) if isinstance(found, str) else tuple(found)


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
            shown = f"{what.replace('_', ' ')} {plain(', '.join(found), 200)}"
            raise InputError(
                f"{folder}: the weights do not fit config.json: {shown}",
                "Use a complete, unmodified folder of one model",
            )
    made: PreTrainedModel = model.eval().requires_grad_(False)
    return made


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The decoder's layers, in order; empty if `transformers` does not mark them in this architecture."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def _config(folder: Path) -> PretrainedConfig:
    require_library()
    try:
        with offline():
            from transformers import AutoConfig

            found: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            return found
    except Exception as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: Exception) -> InputError:
    lines = str(error).strip().splitlines() or [""]
    detail = f"{type(error).__name__}: {plain(lines[0], 300)}"
    return InputError(f"{folder}: transformers cannot load it: {detail}", "Use another base")


def _sizes_of(model: PreTrainedModel) -> ModelSizes:
    config = model.config
    matrices = {id(m.weight): m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear)}
    count = next((n for key in _EXPERTS if (n := getattr(config, key, None))), None)
    active = min(1.0, (getattr(config, "num_experts_per_tok", None) or count) / count) if count else 1.0
    experts = sum(p.numel() for module in _experts_of(model) for p in module.parameters(recurse=False))
    linear = _adaptable(model)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return ModelSizes(
        architecture=type(model).__name__,
        parameters=sum(p.numel() for p in model.parameters()),
        linear_parameters=sum(matrices.values()) + int(experts * active),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        vocab=config.vocab_size,
        context=config.max_position_embeddings,
        ffn=max((rows for rows, _ in linear.values()), default=config.hidden_size),
        cache_width=2 * config.num_hidden_layers * heads * head_dim,
        kept_width=sum(rows + columns for rows, columns in linear.values()),
        stored_scores=0 if config._attn_implementation == "sdpa" else config.num_attention_heads,
        linear=linear,
        others=frozenset(short_names([n for n, _ in model.named_modules() if n not in linear])),
    )


def _adaptable(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """The linear layers of the decoder's blocks whose low-rank update trains here and is served by the engine.

    Not those of a mixture of experts (its experts are no linear layers here, and `peft` takes the names of layers next
    to them for the experts), and not those of a state space, which `transformers` reads without calling them.
    """
    left_out = {id(module) for mixer in model.modules() if hasattr(mixer, "A_log") for module in mixer.modules()}
    mixtures: set[str] = set()
    for block in blocks_of(model):
        parts = dict(block.named_children())
        mixtures |= {name for name, part in parts.items() if _experts_of(part)}
    found: dict[str, tuple[int, int]] = {}
    names = {id(module): name for name, module in model.named_modules()}
    for block in blocks_of(model):
        for part, child in block.named_children():
            for module in child.modules() if part not in mixtures else ():
                if isinstance(module, nn.Linear) and id(module) not in left_out:
                    found[names[id(module)]] = (module.out_features, module.in_features)
    return found


def _experts_of(model: nn.Module) -> list[nn.Module]:
    """The modules that hold the experts of a mixture: parameters of shape (experts, out, in)."""
    return [m for m in model.modules() if any(p.ndim == 3 and p.shape[0] > 1 for p in m.parameters(recurse=False))
            and not isinstance(m, nn.Conv1d)]  # fmt: skip
