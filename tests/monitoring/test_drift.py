"""Drift that was planted is found, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from journeyman.monitoring import drift
from journeyman.monitoring.drift import Reference, drift_of
from journeyman.monitoring.prompts import Prompt, Sample, distances, distinct, prompt_of, unseen
from made_prompts import prompts, tool

ALPHA = 0.01


def _reference(rng: np.random.Generator, count: int = 400) -> Reference:
    made = prompts(rng, count)
    return Reference(made[: count // 2], made[count // 2 :])


def _found(recorded: list[Prompt], reference: Reference, alpha: float = ALPHA) -> set[str]:
    return {one.test for one in drift_of(recorded, reference, alpha).tests if one.found}


def test_what_is_alike_has_no_drift() -> None:
    rng = np.random.default_rng(1)
    found = drift_of(prompts(rng, 300), _reference(rng), ALPHA)
    assert not found.found and [one.test for one in found.tests] == ["length", "vocabulary", "tools", "distance"]
    assert (found.recorded, found.trained, found.held_out, found.unknown) == (300, 400, 200, None)
    assert all(0 <= one.p_value <= 1 and one.effect < one.least for one in found.tests)


@pytest.mark.parametrize(
    ("changes", "least"),
    [
        ({"words": 90}, {"length"}),
        ({"foreign": 0.4}, {"vocabulary"}),
        ({"odd_tools": 0.4}, {"tools"}),
        ({"frames": 100}, {"distance"}),
    ],
)
def test_planted_drift_is_found_by_its_test(changes: dict[str, float], least: set[str]) -> None:
    rng = np.random.default_rng(2)
    reference = _reference(rng)
    found = _found(prompts(rng, 300, **changes), reference)
    assert least <= found
    if least & {"tools", "vocabulary"}:
        assert found == least


@pytest.mark.slow
def test_false_alarms_are_no_more_than_the_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 divisions of the same prompts, judged by p-values alone: demanded effects would only hide false alarms."""
    monkeypatch.setattr(drift, "LEAST_EFFECT", dict.fromkeys(drift.LEAST_EFFECT, 0.0))
    rng, level = np.random.default_rng(3), 0.05
    every = prompts(rng, 600)
    alarms = 0
    for _ in range(200):
        drawn = [every[place] for place in rng.permutation(600)]
        alarms += bool(_found(drawn[:100], Reference(drawn[100:200], drawn[200:300]), level))
    assert alarms <= stats.binom.ppf(0.999, 200, level)


def test_many_prompts_do_not_make_a_trifle_drift() -> None:
    """With 2,000 prompts, a difference of 10 % in length is beyond doubt, and no reason to do anything."""
    rng = np.random.default_rng(4)
    found = drift_of(prompts(rng, 2000, words=44), _reference(rng, 4000), ALPHA)
    length = found.tests[0]
    assert length.p_value < 0.01 and length.effect < length.least and not found.found


def test_too_few_prompts_are_not_judged() -> None:
    rng = np.random.default_rng(5)
    found = drift_of(prompts(rng, 19), _reference(rng), ALPHA)
    assert found.tests == [] and not found.found
    assert found.unknown is not None and found.unknown.code == "too_few_prompts"
    assert found.unknown.details == {"recorded": 19, "known": 200, "held_out": 200, "least": 20}


def test_empty_prompts_are_no_error() -> None:
    rng = np.random.default_rng(6)
    empty = [prompt_of([], [])] * 30
    assert drift_of(empty, Reference(empty, empty), ALPHA).found is False
    assert "length" in _found(empty, _reference(rng))
    assert "vocabulary" in _found(prompts(rng, 30), Reference(empty, empty))


def test_the_features_of_a_prompt() -> None:
    turns = [("system", "ignored"), ("developer", "too"), ("user", "One two two."), ("system", "late")]
    made = prompt_of([{"role": role, "content": text} for role, text in turns], [tool("b"), tool("a"), tool("a")])
    assert (made.length, len(made.words), made.tools) == (4, 3, ("a", "b"))
    known = np.unique(prompt_of([{"role": "user", "content": "one three"}], []).words)
    assert unseen([made], known) == pytest.approx([2 / 3])
    assert distances([made], [made, prompt_of([], [])]).tolist() == [0.0]


def _asked(text: str) -> Prompt:
    return prompt_of([{"role": "user", "content": text}], [])


def test_one_of_each_group_of_near_duplicates_is_kept() -> None:
    """Each of the first five is alike to its neighbours only; all of them are one group."""
    words = [f"w{number}" for number in range(160)]
    chain = [_asked(" ".join(words[start : start + 100])) for start in (0, 8, 16, 24, 32)]
    other = _asked("Something else, and not much of it.")
    assert distances([chain[4]], [chain[0]])[0] > 0.4
    made = distinct([chain[0], other, chain[4], chain[2], other, chain[1], chain[3]], 0.7)
    assert [id(one) for one in made] == [id(chain[0]), id(other)]
    assert len(distinct(chain, 1.0)) == 5 and distinct([], 0.7) == []


def test_a_sample_depends_on_no_order_and_takes_one_of_each_group() -> None:
    members = [(f"g{number % 300}", f"m{number}") for number in range(3000)]
    made = []
    for order in (members, members[::-1]):
        sample: Sample[str] = Sample(50)
        for group, member in order:
            sample.add(group, member, f"{group} {member}")
        made.append(sample.values())
    assert made[0] == made[1] and len({one.split()[0] for one in made[0]}) == len(made[0]) == 50
    other: Sample[str] = Sample(50, seed=1)
    for group, member in members:
        other.add(group, member, f"{group} {member}")
    assert other.values() != made[0]


def test_each_group_and_member_has_the_same_chance() -> None:
    groups: np.ndarray = np.zeros(40)
    members: np.ndarray = np.zeros(4)
    for seed in range(400):
        sample: Sample[tuple[int, int]] = Sample(10, seed)
        for number in range(160):
            sample.add(f"g{number % 40}", f"m{number}", (number % 40, number // 40))
        for group, member in sample.values():
            groups[group] += 1
            members[member] += 1
    assert stats.chisquare(groups).pvalue > 0.001 and stats.chisquare(members).pvalue > 0.001
