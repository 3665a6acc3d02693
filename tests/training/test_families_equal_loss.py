"""45 optimizer steps of each family, of ours in every way and of transformers + peft, in float32.

Rows are longer and shorter than a window, alone and in packs, and two thirds share a beginning.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from equal_training import assert_equal_training, train, train_config, train_with_peft
from journeyman.config import TrainConfig
from journeyman.models.gguf_file import GgufFile
from journeyman.models.weights import load_decoder
from tiny_families import MIXTURES, decoder_of, tiny_family, transformers_model

pytestmark = pytest.mark.slow  # each test also trains with transformers + peft

TRAINED = (
    "gemma2", "gemma3", "gemma3, linear", "olmo2", "olmo3", "llama with biases", "ministral3", "phi 3", "phi4 mini",
    "smollm3", "granite", *MIXTURES,
)  # fmt: skip
LEARNS = {"granite": 0.99, "granitemoe": 0.996}
"""Of families whose scales make the adapter's effect small: the share of the loss that is left."""
CONTEXT = 256
"""With it, Phi's factors are those of short rows, as in transformers (test_longrope)."""


@pytest.mark.parametrize("case", TRAINED)
def test_training_equals_transformers_in_every_way(case: str, tmp_path: Path) -> None:
    """Kept, recomputed and streamed gradients have the same bits, and those of single rows equal those of packs."""
    file, config = GgufFile(tiny_family(case).path), train_config()
    decoder = decoder_of(case, CONTEXT)
    theirs = train_with_peft(transformers_model(case), decoder.geometry, config, LEARNS.get(case, 0.97))
    assert_equal_training(train(decoder, config, tmp_path / "rows", 16), theirs, "single rows")
    kept = train(decoder, config, tmp_path / "kept")
    assert_equal_training(kept, theirs, "packs")
    streaming = load_decoder(file, torch.float32, stream=True, factors=file.geometry.factors(CONTEXT))
    for name, other in (("recomputed", decoder), ("streamed", streaming)):
        losses, adapter = train(other, config, tmp_path / name, recompute=True)
        assert losses == kept[0], name
        assert all(torch.equal(value, kept[1][key]) for key, value in adapter.items()), name


@pytest.mark.parametrize("case", ["phi 3", "qwen3moe", "gpt-oss"])
def test_every_way_drops_the_same_elements(case: str, tmp_path: Path) -> None:
    """Those of each expert, and of fused matrices."""
    file = GgufFile(tiny_family(case).path)
    config = TrainConfig.model_validate(
        {**train_config().model_dump(), "epochs": 1, "lora": {"rank": 4, "alpha": 8, "dropout": 0.1}}
    )
    found = []
    for recompute, stream in ((False, False), (True, False), (True, True)):
        decoder = load_decoder(file, torch.float32, stream=stream)
        found.append(train(decoder, config, tmp_path / f"{recompute} {stream}", recompute=recompute))
    for losses, adapter in found[1:]:
        assert losses == found[0][0]
        assert all(torch.equal(value, found[0][1][name]) for name, value in adapter.items())
