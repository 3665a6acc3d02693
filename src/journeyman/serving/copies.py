"""Several answers to one request (`n`): the engine is asked once for each, and the answers become its choices.

llama.cpp takes `n` itself, but counts the tokens of one answer only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

MAX_COPIES = 8


def of_copy(body: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The request for one of several answers; a seed is different for each, or all would be the same."""
    return {**body, "seed": body["seed"] + number} if number and "seed" in body else dict(body)


def joined(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Complete answers as the choices of one."""
    choices = [{**choice, "index": number} for number, one in enumerate(answers) for choice in one.get("choices", [])]
    usages = [one["usage"] for one in answers if one.get("usage")]
    usage = {"usage": _summed(usages)} if usages else {}
    return {**answers[0], "choices": choices, **usage}


def _summed(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The token counts of all answers; the prompt counts once."""
    answered = sum(one["completion_tokens"] for one in usages)
    prompt = usages[0]["prompt_tokens"]
    return {**usages[0], "completion_tokens": answered, "total_tokens": prompt + answered}


async def merged(streams: Sequence[AsyncIterator[dict[str, Any]]]) -> AsyncIterator[dict[str, Any]]:
    """The chunks of several streamed answers as they arrive, and one with the summed usage at the end.

    Raises:
        Exception: the first that one of them raises; the others end.
    """
    arrived: asyncio.Queue[tuple[int, dict[str, Any] | Exception | None]] = asyncio.Queue(maxsize=2 * len(streams))

    async def read(number: int, stream: AsyncIterator[dict[str, Any]]) -> None:
        try:
            async for event in stream:
                await arrived.put((number, event))
        except Exception as error:
            await arrived.put((number, error))
        else:
            await arrived.put((number, None))

    tasks = [asyncio.create_task(read(number, stream)) for number, stream in enumerate(streams)]
    usages: list[Mapping[str, Any]] = []
    last: dict[str, Any] = {}
    left = len(tasks)
    try:
        while left:
            number, event = await arrived.get()
            if isinstance(event, Exception):
                raise event
            if event is None:
                left -= 1
                continue
            last = event
            if event.get("usage"):
                usages.append(event["usage"])
            if event.get("choices"):
                choices = [{**choice, "index": number} for choice in event["choices"]]
                yield {key: value for key, value in event.items() if key != "usage"} | {"choices": choices}
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if usages:
        yield {**last, "choices": [], "usage": _summed(usages)}
