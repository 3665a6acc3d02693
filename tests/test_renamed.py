"""Old names of config keys and inputs are read with a warning, and no result becomes stale."""

from __future__ import annotations

from pathlib import Path

import pytest

from journeyman.config import load_config, parse_config
from journeyman.errors import UsageError
from journeyman.manifests import Rules
from journeyman.records import RegressionAnswer
from journeyman.renamed import KEYS, VALUES, current_inputs


def test_old_keys_are_read_and_the_new_ones_named(tmp_path: Path) -> None:
    path = tmp_path / "journeyman.toml"
    path.write_text('[train]\npreset = "seed"\n[evaluate]\nprobes = false\n[decide]\nprobe_margin = 0.5\n')
    config = load_config(path)
    assert config.evaluate.regression_suite is False and config.decide.regression_margin == 0.5
    assert config.train.preset == "attention-r8" and config.train.lora.rank == 8
    assert len(config.warnings) == len(KEYS) + len(VALUES)
    assert all("rename it in the config file" in warning for warning in config.warnings)
    assert load_config(path, ["evaluate.probes=true"]).evaluate.regression_suite is True


def test_a_config_with_todays_names_warns_of_nothing() -> None:
    assert (
        parse_config({"evaluate": {"regression_suite": False}, "train": {"preset": "attention-r8"}}, "x").warnings == ()
    )


def test_old_and_new_key_together_are_refused() -> None:
    with pytest.raises(UsageError, match=r"evaluate\.probes"):
        parse_config({"evaluate": {"probes": True, "regression_suite": False}}, "x")


def test_inputs_that_an_older_version_recorded_are_the_same_ones() -> None:
    old = {"train.preset": "seed", "decide.probe_margin": "0.1", "base": "abc"}
    assert current_inputs(old) == {"train.preset": "attention-r8", "decide.regression_margin": "0.1", "base": "abc"}
    assert current_inputs({"train.preset": "default"}) == {"train.preset": "default"}


def test_records_of_older_runs_open() -> None:
    rules = {
        "max_mean_latency_s": 12, "min_success": 0.98, "max_memory_gb": 10, "stretch_mean_latency_s": 10,
        "stretch_success": 0.99, "confidence": 0.95, "role_confidence": 0.95, "margin": None, "files": [], "checks": {},
    }  # fmt: skip
    assert Rules.model_validate({**rules, "probe_margin": 0.2}).regression_margin == 0.2
    made = Rules.model_validate({**rules, "regression_margin": 0.3})
    assert Rules.model_validate_json(made.model_dump_json()) == made
    answer = {
        "adapter": "all", "id": "g/1", "task": "?", "base": "a", "tuned": "b", "base_passes": True,
        "tuned_passes": False, "base_ends": True, "tuned_ends": True,
    }  # fmt: skip
    assert RegressionAnswer.model_validate({**answer, "probe": "general"}).part == "general"
