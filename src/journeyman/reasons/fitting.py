"""What it costs to make a run fit into memory, one reason for each setting that is changed."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.foreign import named
from journeyman.reasons.base import Reason


@dataclass(frozen=True)
class OtherMemoryMode(Reason, code="other_memory_mode"):
    """`mode`: recompute or stream."""

    says = "the same result; {mode} does half as much work again"
    mode: str

    def sentence(self) -> str:
        return super().sentence() if self.mode != "keep" else "the same result"


@dataclass(frozen=True)
class SmallerPacks(Reason, code="smaller_packs"):
    says = "the same training, fewer tokens at once: somewhat slower"


@dataclass(frozen=True)
class MoreGpus(Reason, code="more_gpus"):
    says = "the same training, on {gpus} GPUs"
    gpus: int


@dataclass(frozen=True)
class OtherDevice(Reason, code="other_device"):
    """`device`: for a sentence: "the processor", "a GPU"."""

    says = "trained on {device}, whose results differ by rounding"
    device: str


@dataclass(frozen=True)
class Bfloat16Rounds(Reason, code="bfloat16_rounds"):
    says = "weights and activations are rounded to bfloat16; the adapter stays in float32"


@dataclass(frozen=True)
class LowerRank(Reason, code="lower_rank"):
    """`share`: of the adapter's parameters that are left."""

    says = "an adapter with {share:.0%} of the parameters, which may learn less"
    share: float


@dataclass(frozen=True)
class AttentionTargets(Reason, code="attention_targets"):
    """`share`: of the adapter's parameters that are left."""

    says = "only attention is adapted, with {share:.0%} of the parameters: mostly worse at new facts and formats"
    share: float


@dataclass(frozen=True)
class ShorterRows(Reason, code="shorter_rows"):
    """`rows`: training rows that are longer than `max_length`, of `of`; `cut`: they are cut and not dropped."""

    says = "{what} {rows:,} of {of:,} training rows, and the data is curated anew (add --redo)"
    max_length: int
    rows: int
    of: int
    cut: bool

    def sentence(self) -> str:
        return self.says.format(what="cuts" if self.cut else "drops", rows=self.rows, of=self.of)


@dataclass(frozen=True)
class SmallerBase(Reason, code="smaller_base"):
    """`parameters`: of the smaller base, in 10^9."""

    says = "another model: {name} ({parameters:.1f} billion parameters), if it is good enough; it must be downloaded"
    name: str
    parameters: float

    def sentence(self) -> str:
        return self.says.format(name=named(self.name), parameters=self.parameters)


@dataclass(frozen=True)
class FewerAtOnce(Reason, code="fewer_at_once"):
    says = "{parallel} requests are answered at the same time instead of {before}"
    parallel: int
    before: int


@dataclass(frozen=True)
class ShorterContext(Reason, code="shorter_context"):
    """Tokens; `longest`: of the rows that are known."""

    says = "requests of more than {context:,} tokens with their answer are refused; the longest row has {longest:,}"
    context: int
    longest: int


@dataclass(frozen=True)
class CoarserFile(Reason, code="coarser_file"):
    says = "the base is served as {kind}, which is coarser than now; the evaluation shows what that costs"
    kind: str
