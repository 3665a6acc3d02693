"""A base with two sets of rotary factors is trained with the set that llama.cpp serves it with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import RopeScalingType

from conftest import write_tiny_gguf
from journeyman.errors import InputError
from journeyman.inference.engines import running_engine
from journeyman.models.geometry import Geometry
from journeyman.models.gguf_file import GgufFile
from journeyman.models.gguf_geometry import geometry_of
from journeyman.models.weights import load_decoder
from journeyman.protocols import EngineSettings
from next_tokens import largest_difference, next_tokens
from scaled import LONG, LONG_ABOVE, SHORT, longrope
from tiny_families import decoder_of, tiny_family, transformers_model


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    return GgufFile(write_tiny_gguf(tmp_path_factory.mktemp("longrope") / "m.gguf", extend=longrope))


def _ids(count: int) -> torch.Tensor:
    return torch.randint(3, 200, (count,), generator=torch.Generator().manual_seed(3))


def test_the_engine_chooses_by_the_context_that_it_rounds_up(file: GgufFile) -> None:
    of = file.geometry.factors
    assert [of(context) for context in (1, 200, 256, 257, 4096)] == ["short", "short", "short", "long", "long"]
    assert file.geometry.with_factors("short").rotary.divisors == pytest.approx(SHORT)
    assert file.geometry.with_factors("long").rotary.divisors == pytest.approx(LONG)
    assert file.geometry.rotary.long_above == LONG_ABOVE


def test_a_base_without_two_sets_has_no_choice(tiny_gguf: Path) -> None:
    geometry = GgufFile(tiny_gguf).geometry
    assert geometry.factors(1 << 20) is None
    assert geometry.with_factors(None) is geometry.with_factors("long") is geometry


def test_a_decoder_is_never_made_without_the_choice(file: GgufFile) -> None:
    with pytest.raises(AssertionError, match="two sets"):
        load_decoder(file, torch.float32)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize(("context", "parallel"), [(200, 1), (256, 1), (256, 3), (257, 1), (300, 3)])
@pytest.mark.parametrize("base", ["llama", "phi"])
def test_the_choice_is_llama_cpps(base: str, context: int, parallel: int, file: GgufFile) -> None:
    if base == "phi":
        file = GgufFile(tiny_family("phi4 mini").path)
    chosen = file.geometry.factors(context)
    other = "short" if chosen == "long" else "long"
    ids = _ids(150)
    with running_engine(EngineSettings(file.path, {}, context, 1, 0.0, parallel)) as engine:
        theirs = next_tokens(engine, ids)
    ours, wrong = (
        load_decoder(file, torch.float32, factors=factors).logits(ids, [150])[-1] for factors in (chosen, other)
    )
    size = ours.abs().max()
    assert largest_difference(theirs, ours) < 4e-3 * size
    assert largest_difference(theirs, wrong) > 5e-2 * size


@torch.no_grad()
@pytest.mark.parametrize("length", [200, 300])
def test_transformers_agrees_where_rows_and_context_are_on_the_same_side(length: int) -> None:
    theirs = transformers_model("phi4 mini")(_ids(length)[None]).logits[0]
    ours = decoder_of("phi4 mini", length).logits(_ids(length), [length])
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_the_amplitude_is_transformers(file: GgufFile) -> None:
    assert file.geometry.rotary.amplitude == pytest.approx(1.1)
    # Phi's is computed by the converter: 1 + ln(512 / 256) / ln(256), and the square root of it.
    assert GgufFile(tiny_family("phi4 mini").path).geometry.rotary.amplitude == pytest.approx(1.125**0.5)


def _without(name: str) -> Callable[[gguf.GGUFWriter], None]:
    def extend(writer: gguf.GGUFWriter) -> None:
        longrope(writer)
        for tensors in writer.tensors:
            tensors.pop(name, None)

    return extend


def _values(values: np.ndarray) -> Callable[[gguf.GGUFWriter], None]:
    def extend(writer: gguf.GGUFWriter) -> None:
        _without("rope_factors_long.weight")(writer)
        writer.add_tensor("rope_factors_long.weight", values)

    return extend


def _only_the_type(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_type(RopeScalingType.LONGROPE)


def _without_the_type(writer: gguf.GGUFWriter) -> None:
    writer.add_tensor("rope_factors_short.weight", np.array(SHORT, np.float32))
    writer.add_tensor("rope_factors_long.weight", np.array(LONG, np.float32))


REFUSED = {
    "no factors, as after a conversion of Llama": (
        "llama",
        _only_the_type,
        "without the factors, which the file lacks",
    ),
    "a family without them": ("qwen2", longrope, "which it does not read for qwen2"),
    "only short ones": ("llama", _without("rope_factors_long.weight"), "only one of rope_factors_short"),
    "only long ones": ("llama", _without("rope_factors_short.weight"), "only one of rope_factors_short"),
    "too few": ("llama", _values(np.ones(3, np.float32)), r"the shape \(3,\) and type F32, not \(4,\) and F32"),
    "half precision": ("llama", _values(np.ones(4, np.float16)), "and type F16, not"),
    "zero": ("llama", _values(np.zeros(4, np.float32)), "values that are not positive"),
    "factors of another type": ("llama", _without_the_type, "'rope_factors_.*weight' is unknown to the decoder"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_factors_that_llama_cpp_would_not_use_are_refused(name: str, tmp_path: Path) -> None:
    architecture, extend, why = REFUSED[name]
    with pytest.raises(InputError, match=why):
        geometry_of(GgufFile(write_tiny_gguf(tmp_path / "m.gguf", architecture, extend=extend)))


def test_parameters_do_not_count_factors(file: GgufFile, tiny_gguf: Path) -> None:
    with_factors: Geometry = file.geometry
    assert with_factors.parameters == with_factors.with_factors("long").parameters
    assert with_factors.parameters == GgufFile(tiny_gguf).geometry.parameters
