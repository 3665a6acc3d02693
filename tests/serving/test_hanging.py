"""Engines that hang, and what only looks like it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from journeyman.config import ServeConfig
from journeyman.inference.engines import start_engine
from journeyman.inference.llama import LlamaEngine
from journeyman.protocols import EngineSettings, Pulse
from journeyman.serving import engine as kept_module
from journeyman.serving.engine import kept_engine
from journeyman.serving.hanging import HangDetector

IDLE_S, BUSY_S, EVERY_S = 60.0, 600.0, 5.0
Look = tuple[int | None, int | None, float]


def _seconds_until(*looks: Look) -> float | None:
    """When an engine counts as hanging that was seen like this every five seconds; the last look repeats itself.

    A look is (requests, steps, cores that it used since the look before).
    """
    detector, now, used = HangDetector(IDLE_S, BUSY_S, 0.0), 0.0, 0.0
    for number in range(1000):
        requests, steps, cores = looks[min(number, len(looks) - 1)]
        now, used = now + EVERY_S, used + cores * EVERY_S
        if detector.hangs(Pulse(requests, steps, used), now):
            return now
    return None


TIMES = range(1000)


@pytest.mark.parametrize(
    "looks",
    [
        [(0, 7, 0.0)],  # nothing to do
        [(2, time, 1.0) for time in TIMES],  # it generates
        [(1, time // 100, 1.0) for time in TIMES],  # each batch of a long prompt takes 500 s
        [(1, time // 100, 1.0) if time % 100 == 0 else (None, None, 1.0) for time in TIMES],  # and it is not heard
        [(3, time, 0.0) for time in TIMES],  # it computes on a GPU
        [*[(1, 7, 0.0)] * 8, (0, 8, 0.0)],
    ],
)
def test_what_gets_further_does_not_hang(looks: list[Look]) -> None:
    assert _seconds_until(*looks) is None


@pytest.mark.parametrize(
    ("looks", "after_s"),
    [
        ([(None, None, 0.0)], 65.0),  # stopped, or all of it deadlocked
        ([(1, 7, 0.001)], 70.0),  # deadlocked, but its HTTP server answers
        ([(1, 7, 1.0)], 610.0),  # an endless loop
        ([(None, None, 1.0)], 605.0),
        ([*[(1, 7, 1.0)] * 10, (1, 7, 0.0)], 115.0),  # it computed for 50 s
    ],
)
def test_what_does_not_hangs(looks: list[Look], after_s: float) -> None:
    assert _seconds_until(*looks) == after_s


def test_a_stopped_engine_is_replaced(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_module, "_PULSE_EVERY_S", 0.05)
    monkeypatch.setattr("journeyman.inference.llama._PULSE_TIMEOUT_S", 0.2)
    engine = start_engine(EngineSettings(tiny_gguf, {}, 512, 1, 0.0))
    assert isinstance(engine, LlamaEngine)
    said: list[str] = []

    async def serve() -> None:
        async with kept_engine(engine, said.append, lambda: None, config=ServeConfig(hang_s=0.5)) as kept:
            os.kill(engine.pid, signal.SIGSTOP)
            async with asyncio.timeout(60):
                while kept.restarts == 0:
                    await asyncio.sleep(0.01)
            assert kept.ready() is not None

    asyncio.run(serve())
    assert any("hangs" in line for line in said) and any("is running again" in line for line in said)


def test_a_long_prompt_is_seen_step_by_step(tiny_gguf: Path) -> None:
    engine = start_engine(EngineSettings(tiny_gguf, {}, 512, 1, 0.0))
    try:
        before = engine.pulse()
        engine.greedy([1, 2, 3], 4)
        after = engine.pulse()
        assert before is not None and after is not None and before.requests == after.requests == 0
        assert before.steps is not None and after.steps is not None and after.steps > before.steps
        assert after.cpu_s >= before.cpu_s
    finally:
        engine.stop()
    assert engine.pulse() is None, "it has ended"
