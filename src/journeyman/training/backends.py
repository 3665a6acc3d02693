"""The two ways to train a base: our own decoder, or `transformers` and `peft` for the architectures that it lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

from torch import Tensor

from journeyman.artifacts import ADAPTER_FILE
from journeyman.config import TrainConfig
from journeyman.errors import InputError
from journeyman.models.adapter_conversion import convert_adapter, elements_of_b
from journeyman.models.base import Base
from journeyman.models.geometry import Factors
from journeyman.models.opening import sizes_of
from journeyman.models.sizes import ModelSizes
from journeyman.models.targets import adapted_names
from journeyman.models.weights import load_decoder
from journeyman.sizing.memory import MemoryWay
from journeyman.training.cpu import CpuEngine
from journeyman.training.devices import Gpu, memory_of_gpu
from journeyman.training.engine import TrainingEngine
from journeyman.training.export import write_gguf, write_peft, write_peft_files
from journeyman.training.gpu import GpuEngine, load_on_gpu
from journeyman.training.hardware import compute_dtype, gpu_dtype
from journeyman.training.lora import Adapter
from journeyman.training.peft_format import configuration
from journeyman.training.rehearsal import Rehearsal, random_adapter
from journeyman.training.transformers_engine import TransformersEngine


class Backend(Protocol):
    """Makes engines for one base, and writes what they trained."""

    def engine(self) -> TrainingEngine:
        """A new engine with an untrained adapter; raises InputError if the base cannot be trained."""

    def write(self, adapter: Mapping[str, Tensor], folder: Path) -> None:
        """Writes an adapter in `peft`'s format and as the GGUF adapter ADAPTER_FILE.

        Raises:
            DiskError: the disk is full.
            InputError: the adapter cannot be converted to GGUF.
        """


def backend_of(
    base: Base,
    config: TrainConfig,
    memory: MemoryWay,
    factors: Factors | None = None,
    gpu: Gpu | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Backend:
    """The backend that trains a base.

    Args:
        factors: the rotary divisors that it will be served with (Geometry.factors), if the base has two sets.
        gpu: where it trains; None: on the processor.
        say: called with a line of text when training goes on with less memory than planned.

    Raises:
        InputError: the base cannot be trained, or its adapter could not be served.
    """
    sizes = sizes_of(base)
    if isinstance(sizes, ModelSizes):
        return TransformersBackend(base, sizes, config, memory)
    return DecoderBackend(base, config, memory, factors, gpu, say)


class DecoderBackend:
    """Our own decoder, on dequantized or streamed weights."""

    def __init__(
        self,
        base: Base,
        config: TrainConfig,
        memory: MemoryWay,
        factors: Factors | None,
        gpu: Gpu | None,
        say: Callable[[str], None],
    ) -> None:
        self._base, self._config, self._memory, self._say = base, config, memory, say
        stream, self._on_gpu = memory == "stream", gpu is not None
        if gpu is None:
            self._decoder = load_decoder(base, compute_dtype(config.precision), stream=stream, factors=factors)
        else:
            dtype, eight = gpu_dtype(config.precision), config.precision == "fp8"
            with memory_of_gpu("loading the base", gpu):
                self._decoder = load_on_gpu(base, dtype, gpu.device, eight=eight, blocks=stream, factors=factors)

    def engine(self) -> TrainingEngine:
        recompute = self._memory != "keep"
        if self._on_gpu:
            return GpuEngine(self._decoder, self._config, recompute=recompute, say=self._say)
        return CpuEngine(self._decoder, self._config, recompute=recompute)

    def write(self, adapter: Mapping[str, Tensor], folder: Path) -> None:
        made = Adapter(self._decoder.geometry, self._config.lora, self._config.seed)
        made.load(adapter)
        write_peft(made, self._base.peft, folder)
        write_gguf(made, folder / ADAPTER_FILE)


class TransformersBackend:
    """`transformers` and `peft`; `rehearse` finds out whether what is trained can be served."""

    def __init__(self, base: Base, sizes: ModelSizes, config: TrainConfig, memory: MemoryWay) -> None:
        self._folder, self._peft = base.path, base.peft
        self._sizes, self._config, self._memory = sizes, config, memory
        self._names = adapted_names(list(sizes.linear), config.lora.targets)

    def engine(self) -> TransformersEngine:
        dtype = compute_dtype(self._config.precision)
        return TransformersEngine(self._folder, self._sizes, self._config, dtype, recompute=self._memory == "recompute")

    def write(self, adapter: Mapping[str, Tensor], folder: Path) -> None:
        targets = sorted(self._sizes.unambiguous(self._names))
        write_peft_files(adapter, configuration(self._config.lora, self._peft, targets), folder)
        convert_adapter(folder, self._folder, folder / ADAPTER_FILE)
        wanted = sum(value.numel() for name, value in adapter.items() if ".lora_B." in name)
        if (found := elements_of_b(folder / ADAPTER_FILE)) != wanted:
            raise InputError(
                f"{self._folder}: llama.cpp's converter keeps {found:,} of the {wanted:,} elements of the adapter's B",
                "Set train.lora.targets to fewer layers, such as ['q_proj', 'v_proj']",
            )

    def rehearse(self, texts: Sequence[Sequence[int]], folder: Path) -> Rehearsal:
        """Writes a random adapter to `folder`, and computes what comes after some texts with and without it.

        Raises:
            InputError: the adapter cannot be converted, or the weights are not those of the model.
            DiskError: the disk is full.
        """
        shapes = {name: self._sizes.linear[name] for name in self._names}
        adapter = random_adapter(shapes, self._config.lora, self._config.seed)
        self.write(adapter, folder)
        with closing(self.engine()) as engine:
            engine.load_state({f"adapter/{name}": value for name, value in adapter.items()})
            plain, adapted = ([engine.next_tokens(ids, adapted=on) for ids in texts] for on in (False, True))
        return Rehearsal(texts, plain, adapted, folder / ADAPTER_FILE)
