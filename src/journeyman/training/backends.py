"""The two ways to train a base: our own decoder, or `transformers` and `peft` for the architectures that it lacks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import torch
from torch import Tensor

from journeyman.artifacts import ADAPTER_FILE
from journeyman.config import TrainConfig
from journeyman.errors import InputError
from journeyman.models.adapter_conversion import convert_adapter, elements_of_b
from journeyman.models.base import Base
from journeyman.models.decoder import Decoder
from journeyman.models.geometry import Factors, Geometry
from journeyman.models.gpu.loading import load_on_gpu
from journeyman.models.opening import sizes_of
from journeyman.models.sizes import ModelSizes
from journeyman.models.targets import adapted_names
from journeyman.models.weights import load_decoder
from journeyman.protocols import Reporter
from journeyman.sizing.memory import MemoryWay
from journeyman.training.cpu import CpuEngine
from journeyman.training.devices import Gpu, memory_of_gpu, peak_gpu_bytes
from journeyman.training.engine import TrainingEngine
from journeyman.training.export import write_gguf, write_peft, write_peft_files
from journeyman.training.gpu import GpuEngine
from journeyman.training.hardware import compute_dtype, gpu_dtype, peak_resident_bytes
from journeyman.training.lora import Adapter
from journeyman.training.mirror import Leader
from journeyman.training.peft_format import configuration
from journeyman.training.rehearsal import Rehearsal, random_adapter
from journeyman.training.replica import Replica, on_several_devices
from journeyman.training.transformers_engine import TransformersEngine


class Backend(Protocol):
    """Makes engines for one base, and writes what they trained.

    Attributes:
        machines: how many share the packs that an engine is given at once. The plan, which is made for one machine,
            doesn't know them.
    """

    @property
    def machines(self) -> int: ...

    def engine(self) -> TrainingEngine:
        """A new engine with an untrained adapter; raises InputError if the base cannot be trained."""

    def write(self, adapter: Mapping[str, Tensor], folder: Path) -> None:
        """Writes an adapter in `peft`'s format and as the GGUF adapter ADAPTER_FILE.

        Raises:
            DiskError: the disk is full.
            InputError: the adapter cannot be converted to GGUF.
        """

    def parts(self, sizes: Sequence[int], memory_bytes: float, reporters: Sequence[Reporter]) -> Sequence[Backend]:
        """Backends for parts of the machines, to train several adapters at the same time; empty: one after another.

        While there are parts, only they are used. Each is closed by its user, in any thread.

        Args:
            sizes: the tokens of each adapter's training, largest first.
            memory_bytes: that one adapter needs on one device.
            reporters: as many as adapters; each part has one of them, in this order.
        """

    def close(self) -> None:
        """Ends other processes; no method is called afterwards."""

    def peak_memory_bytes(self) -> int | None:
        """The most memory, of the kind that is scarce, that one process of training has used; None: not known."""


@dataclass(frozen=True)
class Gpus:
    """The GPUs that train.

    Attributes:
        sharded: each keeps a part of the base only.
        say: called with a line of text when training goes on with less memory than planned.
    """

    each: Sequence[Gpu]
    sharded: bool = False
    say: Callable[[str], None] = lambda _: None


def backend_of(
    base: Base, config: TrainConfig, memory: MemoryWay, factors: Factors | None = None, gpus: Gpus | None = None
) -> Backend:
    """The backend that trains a base.

    Args:
        factors: the rotary divisors that it will be served with (Geometry.factors), if the base has two sets.
        gpus: where it trains; None: on the processor.

    Raises:
        InputError: the base cannot be trained, or its adapter could not be served, or a GPU has too little memory.
        WorkerDied: the process of another GPU did not start.
    """
    sizes = sizes_of(base)
    if isinstance(sizes, ModelSizes):
        return TransformersBackend(base, sizes, config, memory)
    if gpus is None:
        return DecoderBackend(base, config, memory, factors)
    return GpuBackend(base, config, memory, factors, gpus)


class OneMachine:
    """What the backends of this machine have in common: adapters are trained one after another."""

    machines = 1
    _config: TrainConfig

    def with_config(self, config: TrainConfig) -> Self:
        """The backend for adapters of this recipe, with the same base in memory; only one of the two is closed.

        Raises:
            InputError: the recipe computes in another precision, or several GPUs train, whose processes have theirs.
        """
        if config == self._config:
            return self
        if config.precision != self._config.precision:
            raise InputError(
                f"adapters in {self._config.precision} and in {config.precision} cannot share a base in memory",
                "Set the same train.precision for all",
            )
        other = copy.copy(self)
        other._config = config
        return other

    def parts(self, sizes: Sequence[int], memory_bytes: float, reporters: Sequence[Reporter]) -> Sequence[Backend]:
        return ()


class DecoderBackend(OneMachine):
    """Our own decoder on the processor, with dequantized or streamed weights."""

    def __init__(self, base: Base, config: TrainConfig, memory: MemoryWay, factors: Factors | None) -> None:
        dtype = compute_dtype(config.precision)
        self._decoder = load_decoder(base, dtype, stream=memory == "stream", factors=factors)
        self._base, self._config, self._memory = base, config, memory

    @property
    def decoder(self) -> Decoder:
        return self._decoder

    @property
    def memory(self) -> MemoryWay:
        return self._memory

    @property
    def config(self) -> TrainConfig:
        return self._config

    def engine(self) -> TrainingEngine:
        return CpuEngine(self._decoder, self._config, recompute=self._memory != "keep")

    def write(self, adapter: Mapping[str, Tensor], folder: Path) -> None:
        write_adapter(adapter, self._decoder.geometry, self._base, self._config, folder)

    def peak_memory_bytes(self) -> int:
        return peak_resident_bytes()

    def close(self) -> None: ...


class GpuBackend(OneMachine):
    """Our own decoder on one GPU, or on several of this machine that each compute some of the rows."""

    def __init__(self, base: Base, config: TrainConfig, memory: MemoryWay, factors: Factors | None, gpus: Gpus) -> None:
        self._base, self._config, self._say = base, config, gpus.say
        self._geometry, self._recompute = base.geometry.with_factors(factors), memory != "keep"
        self._leader: Leader | None = None
        first, blocks = gpus.each[0], memory == "stream"
        dtype = gpu_dtype(config.precision)
        if first.device.type == "cuda":
            torch.cuda.set_device(first.device)  # Triton and graphs launch on the current device
        with memory_of_gpu("loading the base", first):
            if len(gpus.each) == 1:
                self._decoder = load_on_gpu(
                    base, dtype, first.device,
                    blocks=blocks, deterministic=config.deterministic, factors=factors,
                )  # fmt: skip
                return
            replica = Replica(
                base=base.path, config=config, dtype="float32" if dtype == torch.float32 else "bfloat16",
                factors=factors, recompute=self._recompute, blocks=blocks, shard=gpus.sharded,
            )  # fmt: skip
            self._leader = on_several_devices(replica, [str(one.device) for one in gpus.each], gpus.say)

    def with_config(self, config: TrainConfig) -> Self:
        if self._leader is not None and config != self._config:
            raise InputError("several GPUs train adapters of one recipe only", "Set train.gpus = 1")
        return super().with_config(config)

    def engine(self) -> TrainingEngine:
        if self._leader is not None:
            return self._leader.engine()
        return GpuEngine(self._decoder, self._config, recompute=self._recompute, say=self._say)

    def write(self, adapter: Mapping[str, Tensor], folder: Path) -> None:
        write_adapter(adapter, self._geometry, self._base, self._config, folder)

    def peak_memory_bytes(self) -> int:
        return peak_gpu_bytes()

    def close(self) -> None:
        if self._leader is not None:
            self._leader.close()


def write_adapter(
    adapter: Mapping[str, Tensor], geometry: Geometry, base: Base, config: TrainConfig, folder: Path
) -> None:
    """See Backend.write; for our own decoder."""
    made = Adapter(geometry, config.lora, config.seed)
    made.load(adapter)
    write_peft(made, base.peft, folder)
    write_gguf(made, folder / ADAPTER_FILE)


class TransformersBackend(OneMachine):
    """`transformers` and `peft`; `rehearse` finds out whether what is trained can be served."""

    def __init__(self, base: Base, sizes: ModelSizes, config: TrainConfig, memory: MemoryWay) -> None:
        self._folder, self._peft = base.path, base.peft
        self._sizes, self._config, self._memory = sizes, config, memory
        self._names = adapted_names(list(sizes.linear), config.lora.targets)

    def with_config(self, config: TrainConfig) -> Self:
        other = super().with_config(config)
        other._names = adapted_names(list(self._sizes.linear), config.lora.targets)
        return other

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

    def peak_memory_bytes(self) -> int:
        return peak_resident_bytes()

    def close(self) -> None: ...

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
