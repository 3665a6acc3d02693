"""The endpoint that is asked again: what it says about one row does not end the work, an outage does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from journeyman.config import AskAgainConfig, EndpointConfig
from journeyman.errors import EngineError
from journeyman.http_client import DROPPED, BrokenAnswer, Refused, Retry
from journeyman.inference.endpoint import Endpoint
from journeyman.protocols import Question
from journeyman.records import Prediction

REFUSED, UNREADABLE = "refused_by_endpoint", "unreadable"
"""Finish reasons of questions without an answer: the endpoint refuses the request, or its answer cannot be read."""
RATE_LIMITED = Retry(tries=8, first_wait_s=1.0, most_wait_s=600.0, errors=DROPPED)
"""Waits as long as a rate limit asks, up to ten minutes; without a time, about a minute in all. An answer that broke
off is not asked for again at once: it may be paid for by the token."""
_OF_ONE_ROW = frozenset({400, 413, 422, 451})
"""Statuses that say that this request is not answered: too long, or against the provider's policy."""
_MOST_REFUSED = 5


class _TooMuchText(Exception):
    """The answer has far more pieces than the limit allows tokens."""


class Teacher:
    """A Generator.

    Args:
        received: called with each answer, in the thread that asked, before the thread asks again: an answer that has
            come is kept before there can be another.

    Raises:
        UsageError: the key cannot be sent.
    """

    replicas = 1

    def __init__(
        self, config: AskAgainConfig, received: Callable[[Question, Prediction], None], retry: Retry = RATE_LIMITED
    ) -> None:
        self._received = received
        self._endpoint = Endpoint(
            "of the teacher",
            EndpointConfig(url=config.url, model=config.model, key_env=config.key_env), config.temperature, retry,
        )  # fmt: skip
        self._endpoint.setting = "ask_again"
        self._refused = 0
        self._answered = False
        self._over: EngineError | None = None

    def generate(self, question: Question, on_token: Callable[[int], None] | None = None) -> Prediction:
        """One answer, or a Prediction whose finish reason is REFUSED or UNREADABLE.

        Raises:
            EngineError: the endpoint does not answer, does not accept the key, or refuses every request.
            JourneymanError: as `received` does.
        """
        if self._over is not None:
            raise self._over
        answer = self._generate(question, on_token)
        self._received(question, answer)
        return answer

    def _generate(self, question: Question, on_token: Callable[[int], None] | None) -> Prediction:
        most = 2 * question.max_tokens + 1000

        def heard(pieces: int) -> None:
            if pieces > most:
                raise _TooMuchText
            if on_token is not None:
                on_token(pieces)

        try:
            answer = self._endpoint.generate(question, heard)
            json.dumps(answer.model_dump(), ensure_ascii=False).encode()  # fails for half a surrogate pair
        except EngineError as error:
            cause = error.__cause__
            if isinstance(cause, BrokenAnswer):
                return _without_answer(question, UNREADABLE)
            of_one_row = isinstance(cause, Refused) and cause.status in _OF_ONE_ROW
            self._refused += of_one_row
            if not of_one_row or (self._refused >= _MOST_REFUSED and not self._answered):
                self._over = error  # the other threads ask no more
                raise
            return _without_answer(question, REFUSED)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError, _TooMuchText):
            # Not what the API promises: events that are no objects, half surrogates, text without end.
            return _without_answer(question, UNREADABLE)
        self._answered = True
        return answer

    def identity(self, question: Question) -> dict[str, Any]:
        return self._endpoint.identity(question)

    def peak_memory_bytes(self) -> int | None:
        return None

    def close(self) -> None:
        self._endpoint.close()


def _without_answer(question: Question, why: str) -> Prediction:
    return Prediction(
        id=question.row_id, role=question.role, arm=question.arm, text="", finish_reason=why, latency_s=None,
        first_token_s=None, prompt_tokens=0, answer_tokens=0, load=question.load,
    )  # fmt: skip
