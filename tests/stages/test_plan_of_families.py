"""What the plan says of a base that stores several modules as one matrix, or has a window that is not served."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import gguf
import pytest

from conftest import log_row, write_tiny_gguf
from journeyman.manifests import PlanManifest
from journeyman.models.families import MODULES
from journeyman.models.gguf_file import GgufFile
from journeyman.reasons import Reason
from journeyman.reasons.planning import FusedTargets, WindowNotServed
from journeyman.runs import typed_result
from journeyman.sizing.memory import TrainingSize, training_bytes
from test_pipeline import call


def _plan(
    folder: Path, targets: Sequence[str], extend: Callable[[gguf.GGUFWriter], None] = lambda _: None
) -> PlanManifest:
    base = write_tiny_gguf(folder / "phi.gguf", "phi3", extend=extend)
    (folder / "logs.jsonl").write_text("".join(json.dumps(log_row(i)) + "\n" for i in range(20)))
    (folder / "journeyman.toml").write_text(
        f'[base]\nmodel = "{base}"\n[data]\nsources = ["*.jsonl"]\n[train.lora]\nrank = 4\ntargets = {list(targets)}\n'
    )
    assert call("plan", "--dir", folder) == 0
    return typed_result(folder, "plan", PlanManifest)


def _of_kind(plan: PlanManifest, kind: type[Reason]) -> list[Reason]:
    return [one for one in (warning.reason() for warning in plan.warnings) if isinstance(one, kind)]


def test_targets_that_change_more_than_they_name(tmp_path: Path) -> None:
    plan = _plan(tmp_path, ["q_proj", "v_proj", "up_proj"])
    (told,) = _of_kind(plan, FusedTargets)
    assert told == FusedTargets("q_proj, v_proj, up_proj", "qkv_proj, gate_up_proj", "k_proj, gate_proj")
    assert "changes k_proj, gate_proj too" in (tmp_path / "03-plan" / "plan.md").read_text().replace("\\", "")
    # 2 layers, rank 4: qkv 32 + 64, gate and up 32 + 128
    assert plan.trainable_parameters == 2 * 4 * (96 + 160)


@pytest.mark.parametrize("targets", [MODULES, ["q_proj", "k_proj", "v_proj"], ["o_proj", "down_proj"]])
def test_targets_that_change_what_they_name(targets: Sequence[str], tmp_path: Path) -> None:
    assert not _of_kind(_plan(tmp_path, targets), FusedTargets)


def test_a_window_that_llama_cpp_does_not_apply_is_told_if_rows_are_longer(tmp_path: Path) -> None:
    plan = _plan(tmp_path, MODULES, lambda writer: writer.add_sliding_window(20))
    (told,) = _of_kind(plan, WindowNotServed)
    assert isinstance(told, WindowNotServed) and told.window == 20 and told.tokens > 20


def test_a_window_as_long_as_all_rows_is_not_told(tmp_path: Path) -> None:
    plan = _plan(tmp_path, MODULES, lambda writer: writer.add_sliding_window(5000))
    assert not _of_kind(plan, WindowNotServed)


def test_fused_matrices_count_as_separate_ones(tmp_path: Path) -> None:
    fused, separate = (
        GgufFile(write_tiny_gguf(tmp_path / f"{name}.gguf", name)).geometry for name in ("phi3", "llama")
    )
    assert fused.parameters == separate.parameters
    assert fused.linear_parameters == separate.linear_parameters
    for way in ("keep", "recompute", "stream"):
        needed = [training_bytes(TrainingSize(one, 1000, 4, 50), way, 64, 64) for one in (fused, separate)]
        assert needed[1] <= needed[0] < 1.2 * needed[1]
