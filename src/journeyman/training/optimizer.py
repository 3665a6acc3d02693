"""AdamW over the adapter's float32 parameters, and its state as tensors: the same for every engine on the host.

AdamW: Loshchilov & Hutter, 2017 (arXiv 1711.05101).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from journeyman.config import TrainConfig

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class AdapterOptimizer:
    """Takes steps on some parameters, and saves and restores values, gradients and moments.

    Args:
        parameters: name → float32 leaf tensor; the names are those of the state.
    """

    def __init__(self, parameters: Mapping[str, Tensor], config: TrainConfig) -> None:
        self._parameters = parameters
        self._adamw = torch.optim.AdamW(
            list(parameters.values()), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )

    def clip(self, most: float) -> float:
        """Scales the gradients so that their norm is at most `most`; returns the norm before."""
        return torch.nn.utils.clip_grad_norm_(self._parameters.values(), most).item()

    def step(self, learning_rate: float) -> None:
        """Takes a step and clears the gradients."""
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        self._adamw.step()
        self._adamw.zero_grad()

    def values(self) -> dict[str, Tensor]:
        """A copy of the parameters."""
        return {name: value.detach().clone() for name, value in self._parameters.items()}

    def gradients(self) -> dict[str, Tensor]:
        """A copy of the gradients of the step so far; a parameter without one is missing."""
        return {name: v.grad.clone() for name, v in self._parameters.items() if v.grad is not None}

    def set_gradients(self, gradients: Mapping[str, Tensor]) -> None:
        for name, value in self._parameters.items():
            value.grad = gradients.get(name)

    @contextmanager
    def unchanged_on_error(self) -> Iterator[None]:
        """Restores the gradients if the block raises."""
        before = self.gradients()
        try:
            yield
        except BaseException:
            self.set_gradients(before)
            raise

    def state(self) -> dict[str, Tensor]:
        """Values, gradients and moments, under the names that engine.TrainingEngine.state defines; not copies."""
        tensors = {f"adapter/{name}": value.detach() for name, value in self._parameters.items()}
        tensors |= {f"gradient/{name}": v.grad for name, v in self._parameters.items() if v.grad is not None}
        for name, value in self._parameters.items():
            for key, moment in self._adamw.state.get(value, {}).items():
                tensors[f"optimizer/{key}/{name}"] = moment
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores what `state` returned; names and shapes of the values must match."""
        load_values(self._parameters, under(tensors, "adapter/"))
        self.set_gradients(under(tensors, "gradient/"))
        moments = {key: under(tensors, f"optimizer/{key}/") for key in _MOMENTS}
        self._adamw.state.clear()
        for name, value in self._parameters.items():
            if name in moments["step"]:
                self._adamw.state[value] = {key: values[name] for key, values in moments.items()}


def load_values(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copies values into the parameters; names and shapes must match."""
    assert values.keys() == parameters.keys()
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Copies of the tensors whose names begin with the prefix, under the rest of their names."""
    return {name.removeprefix(prefix): value.clone() for name, value in tensors.items() if name.startswith(prefix)}
