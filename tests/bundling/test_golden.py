"""The golden prompt: the same computation in another form passes, and a wrong one does not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

import journeyman.bundling.golden as golden_prompt
from journeyman.bundling.golden import NEAR_NATS, compare, record, record_merged, settings_of
from journeyman.bundling.trials import trial_line
from journeyman.config import LoraConfig
from journeyman.errors import InputError
from journeyman.inference.engines import engine_identity, running_engine
from journeyman.manifests import BundleManifest, GoldenAnswer, Trial
from journeyman.models.gguf_file import GgufFile
from journeyman.rendering.renderer import Renderer
from journeyman.training.export import write_gguf
from journeyman.training.lora import Adapter
from journeyman.training.merge import format_like, merged_format, write_merged_file

GOLDEN = GoldenAnswer(adapter="all", role="coder", prompt="x", prompt_ids=[1, 2], answer_ids=[5, 6, 7, 8])


class Model:
    """Continues with 5, 6, 7, 8, except at a place, where it prefers 9 by `gap` nats; it stops after `end` tokens."""

    def __init__(self, at: int = 99, gap: float = 0.0, end: int = 99) -> None:
        self.at, self.gap, self.end, self.asked = at, gap, end, [0]

    def _next(self, ids: Sequence[int]) -> dict[int, float]:
        place = len(ids) - len(GOLDEN.prompt_ids)
        assert list(ids) == [*GOLDEN.prompt_ids, *GOLDEN.answer_ids[:place]], "it is given the golden tokens"
        likely = {GOLDEN.answer_ids[place]: -1.0}
        return {**likely, 9: -1.0 + self.gap} if place == self.at else likely

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        self.asked.append(len(ids))
        found: list[int] = []
        while len(found) < count and len(ids) + len(found) - len(GOLDEN.prompt_ids) < self.end:
            likely = self._next([*ids, *found])
            found.append(max(likely, key=lambda token: likely[token]))
            if found[-1] == 9:
                break
        return found

    def next_tokens(self, ids: Sequence[int], count: int) -> dict[int, float]:
        return self._next(ids)


def test_the_golden_tokens_are_the_same_near_or_refused(tmp_path: Path) -> None:
    same = compare(GOLDEN, Model(), "a program", tmp_path, "do this")
    assert (same.outcome, same.tokens, same.differing, same.program) == ("same", 4, 0, "a program")
    for at in range(4):
        near = compare(GOLDEN, Model(at, 0.25), "a program", tmp_path, "do this")
        assert (near.outcome, near.differing, near.most_nats) == ("near", 1, pytest.approx(0.25))
        with pytest.raises(InputError, match=rf"token {at + 1} of 4 is another one, 0\.75 nats likelier"):
            compare(GOLDEN, Model(at, 0.75), "a program", tmp_path, "do this")


def test_a_program_that_says_nothing_is_refused(tmp_path: Path) -> None:
    class Silent(Model):
        def next_tokens(self, ids: Sequence[int], count: int) -> dict[int, float]:
            return {}

    with pytest.raises(InputError, match="token 3 of 4 is another one, inf nats"):
        compare(GOLDEN, Silent(end=2), "a program", tmp_path, "do this")


@pytest.mark.slow
def test_a_merged_real_model_passes_and_a_wrong_one_does_not(
    embedded: GgufFile, renderer: Renderer, tmp_path: Path
) -> None:
    adapter = Adapter(embedded.geometry, LoraConfig(rank=8, alpha=16), seed=1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in adapter.parameters.items():
            if ".lora_B." in name:
                value.normal_(0, 0.05, generator=generator)
    write_gguf(adapter, tmp_path / "adapter.gguf")
    (tmp_path / "base.gguf").symlink_to(embedded.path)
    bundle = BundleManifest.model_construct(
        roles=["coder"], system_prompts={"coder": "You are a coder."}, settings={"context": 512},
        base_file="base.gguf", adapter_files={"all": "adapter.gguf"}, engine=engine_identity(512, 1, 1),
    )  # fmt: skip
    (golden,) = record(bundle, tmp_path, renderer, 1).answers
    assert len(golden.answer_ids) > 8
    assert format_like(embedded, tmp_path / "adapter.gguf") == "Q4_1"
    assert merged_format(embedded, tmp_path / "adapter.gguf") == "Q8_0", "4 bits would be rounded twice"
    merged = tmp_path / "merged.gguf"
    write_merged_file(embedded, tmp_path / "adapter.gguf", "Q8_0", merged)
    with running_engine(settings_of(bundle, merged, None, 1)) as engine:
        assert compare(golden, engine, "llama.cpp", tmp_path, "do this").outcome in ("same", "near")
    (own,) = record_merged(bundle, "all", merged, renderer, 1).answers
    assert own.base_nats is None and golden.base_nats is not None and golden.base_nats > NEAR_NATS
    with (
        running_engine(settings_of(bundle, embedded.path, None, 1)) as engine,
        pytest.raises(InputError, match="does not answer the golden prompt"),
    ):
        compare(golden, engine, "llama.cpp", tmp_path, "do this")


def test_an_answer_that_the_base_gives_too_is_said_to_prove_little(tmp_path: Path) -> None:
    for nats, proves in ((0.1, False), (3.0, True)):
        trial = compare(GOLDEN.model_copy(update={"base_nats": nats}), Model(), "a program", tmp_path, "do this")
        assert ("does not show that the adapter works" in trial_line(trial)) != proves


class Engine:
    """Answers each prompt with its tokens; the base alone answers with another first token, unless it says so."""

    def __init__(self, answers: dict[int, list[int]], alike: Sequence[int] = ()) -> None:
        self.answers, self.alike = answers, alike

    def greedy(self, ids: Sequence[int], count: int, *, adapted: bool = True) -> list[int]:
        if adapted:
            return self.answers[ids[0]]
        return self.answers[ids[0]][len(ids) - 1 :] if ids[0] in self.alike else [0] * count

    def next_tokens(self, ids: Sequence[int], count: int, *, adapted: bool = True) -> dict[int, float]:
        return {0: -0.1, self.answers[ids[0]][len(ids) - 1]: -9.0}


@pytest.mark.parametrize(
    ("lengths", "alike", "chosen"),
    [
        ((1, 2, 5, 9, 1, 1), (), 2),
        ((1, 2, 3, 1, 1, 1), (), 2),
        ((9, 2, 9, 1, 1, 1), (0, 2), 1),
        ((9, 9, 5, 1, 1, 1), (0, 1), 2),
    ],
)
def test_an_answer_of_few_tokens_is_golden_only_if_there_is_no_longer_one(
    lengths: Sequence[int], alike: Sequence[int], chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine({number: [7] * length for number, length in enumerate(lengths)}, alike)
    monkeypatch.setattr(golden_prompt, "running_engine", lambda settings: nullcontext(engine))
    asked = iter(range(6))
    renderer = SimpleNamespace(prompt_ids=lambda messages: [next(asked)], prompt_text=lambda messages: "x")
    bundle = BundleManifest.model_construct(
        roles=["coder"], system_prompts={}, settings={"context": 512}, base_file="base.gguf",
        adapter_files={"all": "adapter.gguf"}, engine=engine_identity(512, 1, 1),
    )  # fmt: skip
    (golden,) = record(bundle, Path(), cast(Any, renderer), 1).answers
    assert golden.prompt_ids == [chosen] and len(golden.answer_ids) == lengths[chosen]


@pytest.mark.parametrize(
    ("gap", "said"), [(0.003, "0.01"), (0.01, "0.01"), (0.07, "0.07"), (0.141, "0.15"), (0.0, "0.00")]
)
def test_how_much_likelier_other_tokens_were_is_never_said_too_low(gap: float, said: str) -> None:
    trial = Trial(adapter="all", program="llama.cpp", outcome="near", tokens=8, differing=2, most_nats=gap)
    assert f"; the others were at most {said} nats likelier" in trial_line(trial)
