"""The sizes of well-known bases, by name: what can be said about a plan before anything is downloaded.

Each entry has the values of the publisher's config.json that decide shapes. The tests compare the number of parameters
with the one that the publisher's safetensors files state, and with the model that `transformers` builds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from journeyman.models.geometry import Geometry
from journeyman.models.hf_config import HfConfig
from journeyman.models.hf_geometry import geometry_of
from journeyman.models.hf_model_types import MODEL_TYPES

_MOST = 200
_TIES = "tie_word_embeddings"


@dataclass(frozen=True)
class KnownBase:
    """A base of known sizes.

    Attributes:
        name: as people write it.
        pattern: found in its names, in lower case with "-" for "_" and " "; of all that match, the longest counts.
        parameters: what the publisher's files state, for the tests.
        values: of config.json.
    """

    name: str
    pattern: str
    model_type: str
    parameters: int
    values: Mapping[str, Any]

    @property
    def geometry(self) -> Geometry:
        kind = MODEL_TYPES[self.model_type]
        config = HfConfig(Path(self.name), self.model_type, kind, self.values)
        return geometry_of(config, tied_head=bool(config.get(_TIES)), biases=kind.always_biased)


def _values(sizes: tuple[int, ...], vocab: int, *, tied: bool = False, **more: Any) -> dict[str, Any]:
    """`sizes`: layers, width, heads, heads of keys and values, width of the feed-forward network."""
    layers, hidden, heads, kv_heads, ffn = sizes
    return {
        "num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "intermediate_size": ffn, "vocab_size": vocab, _TIES: tied, **more,
    }  # fmt: skip


def _qwen25(size: str, parameters: int, *sizes: int, vocab: int = 152064, tied: bool = False) -> KnownBase:
    pattern = rf"qwen-?2\.5(-coder|-math)?-{re.escape(size)}(?![\d.])"
    return KnownBase(f"Qwen2.5-{size.upper()}", pattern, "qwen2", parameters, _values(sizes, vocab, tied=tied))


def _qwen3(size: str, parameters: int, *sizes: int, tied: bool = False) -> KnownBase:
    pattern = rf"qwen-?3-{re.escape(size)}(?![\d.])(?!-a\d)"
    values = _values(sizes, 151936, tied=tied, head_dim=128)
    return KnownBase(f"Qwen3-{size.upper()}", pattern, "qwen3", parameters, values)


def _llama(version: str, size: str, parameters: int, *sizes: int, **more: Any) -> KnownBase:
    pattern = rf"llama-?{version}-{size}(?![\d.])"
    return KnownBase(f"Llama 3 {size.upper()}", pattern, "llama", parameters, _values(sizes, 128256, **more))


def _gemma(version: int, size: str, parameters: int, *sizes: int, vocab: int, **more: Any) -> KnownBase:
    kind = {2: "gemma2", 3: "gemma3_text"}[version]
    values = _values(sizes, vocab, tied=True, **more)
    return KnownBase(f"Gemma {version} {size.upper()}", rf"gemma-?{version}-{size}(?![\d.])", kind, parameters, values)


def _smollm2(size: str, parameters: int, *sizes: int) -> KnownBase:
    pattern = rf"smollm-?2-{re.escape(size)}(?![\d.])"
    return KnownBase(f"SmolLM2-{size.upper()}", pattern, "llama", parameters, _values(sizes, 49152, tied=True))


KNOWN_BASES = (
    _qwen25("0.5b", 494_032_768, 24, 896, 14, 2, 4864, vocab=151936, tied=True),
    _qwen25("1.5b", 1_543_714_304, 28, 1536, 12, 2, 8960, vocab=151936, tied=True),
    _qwen25("3b", 3_085_938_688, 36, 2048, 16, 2, 11008, vocab=151936, tied=True),
    _qwen25("7b", 7_615_616_512, 28, 3584, 28, 4, 18944),
    _qwen25("14b", 14_770_033_664, 48, 5120, 40, 8, 13824),
    _qwen25("32b", 32_763_876_352, 64, 5120, 40, 8, 27648),
    _qwen3("0.6b", 596_049_920, 28, 1024, 16, 8, 3072, tied=True),
    _qwen3("1.7b", 1_720_574_976, 28, 2048, 16, 8, 6144, tied=True),
    _qwen3("4b", 4_022_468_096, 36, 2560, 32, 8, 9728, tied=True),
    _qwen3("8b", 8_190_735_360, 36, 4096, 32, 8, 12288),
    _qwen3("14b", 14_768_307_200, 40, 5120, 40, 8, 17408),
    _qwen3("32b", 32_762_123_264, 64, 5120, 64, 8, 25600),
    _llama(r"3(\.1)?", "8b", 8_030_261_248, 32, 4096, 32, 8, 14336),
    _llama(r"3(\.[13])?", "70b", 70_553_706_496, 80, 8192, 64, 8, 28672),
    _llama(r"3\.2", "1b", 1_235_814_400, 16, 2048, 32, 8, 8192, tied=True, head_dim=64),
    _llama(r"3\.2", "3b", 3_212_749_824, 28, 3072, 24, 8, 8192, tied=True, head_dim=128),
    KnownBase(
        "Mistral 7B", r"mistral-7b(-instruct)?(-v0\.[12])?", "mistral", 7_241_732_096,
        _values((32, 4096, 32, 8, 14336), 32000),
    ),
    KnownBase(
        "Mistral 7B v0.3", r"mistral-7b(-instruct)?-v0\.3", "mistral", 7_248_023_552,
        _values((32, 4096, 32, 8, 14336), 32768),
    ),
    _gemma(2, "2b", 2_614_341_888, 26, 2304, 8, 4, 9216, vocab=256000, head_dim=256),
    _gemma(2, "9b", 9_241_705_984, 42, 3584, 16, 8, 14336, vocab=256000, head_dim=256),
    _gemma(3, "270m", 268_098_176, 18, 640, 4, 1, 2048, vocab=262144, head_dim=256),
    _gemma(3, "1b", 999_885_952, 26, 1152, 4, 1, 6912, vocab=262144, head_dim=256),
    _smollm2("135m", 134_515_008, 30, 576, 9, 3, 1536),
    _smollm2("360m", 361_821_120, 32, 960, 15, 5, 2560),
    _smollm2("1.7b", 1_711_376_384, 24, 2048, 32, 32, 8192),
)  # fmt: skip


def known_base(name: str) -> KnownBase | None:
    """The base that a name means, such as `Qwen/Qwen2.5-Coder-7B-Instruct`; None if it is not known.

    The name of a tuned model that contains its base's name means that base.
    """
    lower = re.sub(r"[_ ]", "-", name[:_MOST].lower())
    found = [(match.end() - match.start(), one) for one in KNOWN_BASES if (match := re.search(one.pattern, lower))]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def smaller_bases(name: str, parameters: int) -> list[tuple[KnownBase, str]]:
    """The known bases of a base's series with fewer parameters, the largest first, each with its name on the hub.

    The name is the given one with another size, so that a variant stays one; "" if the given name is none of the hub,
    or the smaller base has another version.
    """
    base = known_base(name)
    if base is None:
        return []
    series, size = _series(base)
    found = [one for one in KNOWN_BASES if _series(one)[0] == series and one.parameters < parameters]
    return [
        (one, _renamed(name, base, size, one)) for one in sorted(found, key=lambda one: one.parameters, reverse=True)
    ]


def _series(base: KnownBase) -> tuple[str, str]:
    """A name without its size, and the size, such as 1.5B."""
    parts = re.split(r"[- ]", base.name)
    size = next(part for part in parts if re.fullmatch(r"[\d.]+[BM]", part))
    return " ".join(part for part in parts if part != size and not part.startswith("v")), size


def _renamed(name: str, base: KnownBase, size: str, other: KnownBase) -> str:
    to = _series(other)[1]
    same_version = base.pattern.replace(re.escape(size.lower()), re.escape(to.lower())) == other.pattern
    if not same_version or not re.fullmatch(r"[\w-]+/[\w.-]+(:\w+)?", name) or name.endswith(".gguf"):
        return ""
    return re.sub(rf"(?<![\d.]){re.escape(size)}(?![\d.])", to, name, count=1, flags=re.IGNORECASE)
