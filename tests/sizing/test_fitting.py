"""The search for the smallest changes with which something fits."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from journeyman.models.known import known_base, smaller_bases
from journeyman.reasons import Text
from journeyman.sizing.fitting import Dimension, Option, Severity, nearest
from journeyman.sizing.serving_fitting import Serving, nearest_servings

QWEN = known_base("Qwen/Qwen2.5-0.5B")
assert QWEN is not None


def _dimension(severity: Severity, key: str, *saved: int) -> Dimension:
    return Dimension(severity, [Option({key: one}, Text(f"{key} saves {one}")) for one in saved])


def _found(dimensions: Sequence[Dimension], needed: int) -> list[dict[str, int]]:
    def fits(options: Sequence[Option]) -> bool:
        return sum(value for one in options for value in one.settings.values()) >= needed

    return [change.settings for change in nearest(dimensions, fits)]


DIMENSIONS = [
    _dimension(Severity.NOTHING, "packs", 1, 2, 4),
    _dimension(Severity.ROUNDING, "precision", 3),
    _dimension(Severity.LESS, "rank", 1, 5),
    _dimension(Severity.OTHER_MODEL, "base", 6, 20),
]


@pytest.mark.parametrize(
    ("needed", "first"),
    [
        (1, {"packs": 1}),
        (3, {"packs": 4}),
        (6, {"packs": 4, "precision": 3}),
        (12, {"packs": 4, "precision": 3, "rank": 5}),
    ],
)
def test_the_mildest_that_is_enough_comes_first(needed: int, first: dict[str, int]) -> None:
    assert _found(DIMENSIONS, needed)[0] == first


def test_nothing_is_changed_that_is_not_needed() -> None:
    assert _found(DIMENSIONS, 5) == [{"packs": 2, "precision": 3}, {"rank": 5}, {"base": 6}]
    assert _found(DIMENSIONS, 13) == [{"base": 20}], "another model needs no smaller adapter besides"
    assert _found(DIMENSIONS, 50) == []


def test_options_that_are_milder_are_tried_before_stronger_ones() -> None:
    dimensions = [_dimension(Severity.NOTHING, "packs", 1, 2, 4), _dimension(Severity.LESS, "rank", 1, 2)]
    assert _found(dimensions, 5) == [{"packs": 4, "rank": 1}]


def _serving(**more: object) -> Serving:
    values = {"trainable": 10**6, "file_bytes": 500 * 10**6, "context": 4096, "parallel": 4, "longest_row": 700}
    return Serving(QWEN.geometry, **{**values, **more})  # type: ignore[arg-type]


def test_serving_answers_fewer_or_shorter_requests() -> None:
    serving = _serving()
    cache = serving.bytes_with() - _serving(context=0).bytes_with()
    half = serving.bytes_with() - cache // 2
    assert [one.settings for one in nearest_servings(serving, half)] == [
        {"evaluate.parallel": 2},
        {"evaluate.context": 2048},
    ]
    for change in nearest_servings(serving, half):
        assert serving.bytes_with(change.options) <= half
    least = _serving(parallel=1, context=768).bytes_with()
    assert [one.settings for one in nearest_servings(serving, least)] == [
        {"evaluate.parallel": 1, "evaluate.context": 768}
    ], "not below the longest row"
    assert nearest_servings(serving, least - 1) == []


def test_a_folder_is_served_in_a_coarser_format() -> None:
    serving = _serving(file_bytes=10**9, folder=True)
    limit = serving.bytes_with() - 4 * 10**8
    assert {"evaluate.quantizations": ["Q8_0"]} in [one.settings for one in nearest_servings(serving, limit)]
    assert not any(
        "evaluate.quantizations" in one.settings for one in nearest_servings(_serving(file_bytes=10**9), limit)
    )
    kinds = [
        one.settings
        for one in nearest_servings(_serving(folder=True, quantizes=True), limit=440 * 10**6 + (1 << 20) * 300)
    ]
    assert all(one.get("evaluate.quantizations") != ["Q8_0"] for one in kinds), "it is not smaller"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (
            "Qwen/Qwen2.5-Coder-3B-Instruct",
            [
                ("Qwen2.5-1.5B", "Qwen/Qwen2.5-Coder-1.5B-Instruct"),
                ("Qwen2.5-0.5B", "Qwen/Qwen2.5-Coder-0.5B-Instruct"),
            ],
        ),
        ("HuggingFaceTB/SmolLM2-360M-Instruct:Q8_0", [("SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M-Instruct:Q8_0")]),
        ("models/qwen2.5-1.5b-q8_0.gguf", [("Qwen2.5-0.5B", "")]),
        ("meta-llama/Llama-3.1-8B", [("Llama 3 3B", ""), ("Llama 3 1B", "")]),
        ("embedded", []),
    ],
)
def test_smaller_bases_of_the_series(name: str, found: list[tuple[str, str]]) -> None:
    base = known_base(name)
    parameters = base.parameters if base is not None else 135_000_000
    assert [(one.name, to) for one, to in smaller_bases(name, parameters)] == found
