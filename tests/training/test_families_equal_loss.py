"""45 optimizer steps of each family, of ours in every way and of transformers + peft, in float32.

Rows are longer and shorter than a window, alone and in packs, and two thirds share a beginning.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from equal_training import assert_equal_training, train, train_config, train_with_peft
from journeyman.models.gguf_file import GgufFile
from journeyman.models.weights import load_decoder
from tiny_families import tiny_family, transformers_model

pytestmark = pytest.mark.slow  # each test also trains with transformers + peft

TRAINED = ("gemma2", "gemma3", "gemma3, linear", "olmo2", "olmo3")


@pytest.mark.parametrize("case", TRAINED)
def test_training_equals_transformers_in_every_way(case: str, tmp_path: Path) -> None:
    """Kept, recomputed and streamed gradients have the same bits, and those of single rows equal those of packs."""
    file, config = GgufFile(tiny_family(case).path), train_config()
    decoder = load_decoder(file, torch.float32)
    theirs = train_with_peft(transformers_model(case), decoder.geometry, config)
    assert_equal_training(train(decoder, config, tmp_path / "rows", 16), theirs, "single rows")
    kept = train(decoder, config, tmp_path / "kept")
    assert_equal_training(kept, theirs, "packs")
    streaming = load_decoder(file, torch.float32, stream=True)
    for name, other in (("recomputed", decoder), ("streamed", streaming)):
        losses, adapter = train(other, config, tmp_path / name, recompute=True)
        assert losses == kept[0], name
        assert all(torch.equal(value, kept[1][key]) for key, value in adapter.items()), name
