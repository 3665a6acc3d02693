"""However the rows of a step are divided, every row is computed once and the sums stay the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from conftest import write_tiny_gguf
from journeyman.config import LoraConfig, TrainConfig
from journeyman.models.gguf_file import GgufFile
from journeyman.models.weights import load_decoder
from journeyman.rendering.renderer import Rendered
from journeyman.training.batches import Pack, pack
from journeyman.training.cpu import CpuEngine
from journeyman.training.division import divide_packs, divide_rows, laid_out
from journeyman.training.engine import KeyedPack
from journeyman.training.unpacking import rows_of


def _rows(count: int = 13) -> list[Rendered]:
    """Rows of which two families share a beginning, with weights of their own."""
    generator = torch.Generator().manual_seed(1)
    begins = [torch.randint(3, 200, (20 + 9 * n,), generator=generator).tolist() for n in range(2)]
    rows = []
    for number in range(count):
        own = torch.randint(3, 200, (9 + 5 * number % 31,), generator=generator).tolist()
        before = begins[number % 3] if number % 3 < 2 else []
        rows.append(Rendered(before + own, len(before) + 4, weight=1.0 + number % 3))
    return rows


def _divided(packs: list[Pack], devices: int) -> list[list[Pack]]:
    return [[laid_out(packs, rows) for rows in share] for share in divide_rows(packs, devices)]


def _contents(packs: list[Pack]) -> Counter[tuple[tuple[int, ...], ...]]:
    return Counter(
        tuple(tuple(one.tolist()) for one in (row.ids_T, row.source_L, row.labels_L, row.weights_L))
        for one in packs
        for row in rows_of(one)
    )


@pytest.mark.parametrize("devices", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("tokens", [60, 120, 1000])
def test_every_row_has_one_place(devices: int, tokens: int) -> None:
    packs = pack(_rows(), tokens)
    shares = _divided(packs, devices)
    assert len(shares) == devices
    divided = [one for share in shares for one in share]
    assert _contents(divided) == _contents(packs)
    assert max(len(one.ids_T) for one in divided) <= max(len(one.ids_T) for one in packs)
    assert sum(one.row_tokens for one in divided) == sum(one.row_tokens for one in packs)


def test_devices_get_as_many_tokens() -> None:
    rows = [Rendered(list(range(3, 203))[: 100 + 37 * n % 97], 10 + n) for n in range(16)]
    rows = [Rendered([n + 3, *row.ids], row.prompt_tokens) for n, row in enumerate(rows)]
    loads = [sum(len(one.ids_T) for one in share) for share in _divided(pack(rows, 4096), 2)]
    assert max(loads) < 1.02 * sum(loads) / 2


def test_a_shared_beginning_keeps_rows_together() -> None:
    begin = list(range(3, 103))
    rows = [Rendered([*begin, 110 + n, 5, 6], 101) for n in range(4)]
    rows += [Rendered([150 + n, *range(3, 56)], 10) for n in range(2)]
    shares = _divided(pack(rows, 1000), 2)
    assert sorted(sum(len(one.ids_T) for one in share) for share in shares) == [108, 112]


def test_the_sums_stay_the_same(tmp_path: Path) -> None:
    config = TrainConfig(lora=LoraConfig(rank=3, alpha=6))
    decoder = load_decoder(GgufFile(write_tiny_gguf(tmp_path / "m.gguf")), torch.float32)
    packs = pack(_rows(), 120)
    labels = sum(one.label_weight for one in packs)

    def sums(parts: list[Pack]) -> tuple[float, dict[str, torch.Tensor]]:
        engine = CpuEngine(decoder, config)
        loss = engine.accumulate([KeyedPack(one, str(n)) for n, one in enumerate(parts)], labels, lambda _: None)
        return loss.loss, {name: value for name, value in engine.state().items() if name.startswith("gradient/")}

    loss, gradients = sums(packs)
    other, others = sums([one for share in _divided(packs, 3) for one in share])
    assert other == pytest.approx(loss, rel=1e-6)
    for name, value in gradients.items():
        assert torch.allclose(others[name], value, rtol=1e-4, atol=1e-6), name


def test_whole_packs_are_divided_by_size() -> None:
    packs = pack(_rows(), 60)
    shares = divide_packs(packs, 2)
    assert sorted(number for share in shares for number in share) == list(range(len(packs)))
    loads = [sum(len(packs[number].ids_T) for number in share) for share in shares]
    assert abs(loads[0] - loads[1]) <= max(len(one.ids_T) for one in packs)
    assert divide_packs([], 3) == [[], [], []]
    assert divide_rows([], 3) == [[], [], []]
