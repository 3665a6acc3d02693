"""A SentencePiece model, trained on the texts of the tests."""

from __future__ import annotations

import io
from typing import Any

import pytest

from hostile_texts import REAL, mixtures


def trained(kind: str, **changes: Any) -> Any:
    """A SentencePiece model."""
    spm = pytest.importorskip("sentencepiece")
    lines = [
        line for text in [*REAL, *mixtures(300, 5)] for line in text.replace("\0", "").splitlines() if line.strip()
    ]
    proto = io.BytesIO()
    settings: dict[str, Any] = {
        "vocab_size": 1500, "hard_vocab_limit": False, "byte_fallback": True, "remove_extra_whitespaces": False,
        "character_coverage": 0.98,
        "normalization_rule_name": "identity", "control_symbols": ["[INST]", "[/INST]"], "minloglevel": 2, **changes
    }  # fmt: skip
    spm.SentencePieceTrainer.train(sentence_iterator=iter(lines * 3), model_writer=proto, model_type=kind, **settings)
    return spm.SentencePieceProcessor(model_proto=proto.getvalue())
