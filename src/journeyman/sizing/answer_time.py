"""The time of many answers, from some that were measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TimedAnswer:
    """An answer that was measured, perhaps only its beginning.

    Attributes:
        first_s: to the first token, which includes waiting and the prompt.
        more_s: from the first token to the last that was seen.
        tokens: that were seen.
        ended: the model ended it by itself, and no limit did.
    """

    prompt_tokens: int
    first_s: float
    more_s: float
    tokens: int
    ended: bool


@dataclass(frozen=True)
class AnswerRate:
    """The mean pace of answers at some number of concurrent requests.

    Attributes:
        prompt_tokens, first_s: means of the prompts that were measured.
        token_s: seconds of each token after the first.
        spread: relative standard error of the time of an answer.
    """

    load: int
    prompt_tokens: float
    first_s: float
    token_s: float
    spread: float

    def seconds(self, answers: float, prompt_tokens: float, answer_tokens: float) -> float:
        """Until so many answers are given, if the first token's time grows with the prompt."""
        first = self.first_s * prompt_tokens / max(1.0, self.prompt_tokens)
        return answers * (first + self.token_s * max(0.0, answer_tokens - 1)) / self.load


def rate_of(answers: Sequence[TimedAnswer], load: int) -> AnswerRate | None:
    """None: no answer got beyond its first token."""
    tokens = sum(one.tokens - 1 for one in answers)
    if tokens <= 0:
        return None
    each = [one.more_s / (one.tokens - 1) for one in answers if one.tokens > 1]
    mean = statistics.fmean(each)
    spread = statistics.stdev(each) / mean / math.sqrt(len(each)) if len(each) > 1 and mean > 0 else 0.25
    return AnswerRate(
        load=load,
        prompt_tokens=statistics.fmean(one.prompt_tokens for one in answers),
        first_s=statistics.fmean(one.first_s for one in answers),
        token_s=sum(one.more_s for one in answers) / tokens,
        spread=spread,
    )


@dataclass(frozen=True)
class Length:
    """The mean length of answers, in tokens, with an interval."""

    mean: float
    low: float
    high: float


def length_of(answers: Sequence[TimedAnswer], most: int) -> Length:
    """The mean length of answers that end at a constant rate and have at most `most` tokens.

    Answers that were cut off count as censored: the rate is the number of ends over all tokens seen. The interval is
    that of two standard deviations of a Poisson count.
    """
    tokens, ends = sum(one.tokens for one in answers), sum(one.ended for one in answers)

    def mean(count: float) -> float:
        rate = count / max(1, tokens)
        return most if rate * most < 1e-6 else -math.expm1(-rate * most) / rate

    often, seldom = ends + 2 * math.sqrt(ends) + (ends == 0) * 3, max(0.0, ends - 2 * math.sqrt(ends))
    return Length(mean(ends or 0.5), mean(often), mean(seldom))


@dataclass(frozen=True)
class Asking:
    """Answers of one arm."""

    name: str
    rate: AnswerRate
    answers: float
    prompt_tokens: float
    length: Length

    def seconds(self, tokens: float) -> float:
        return self.rate.seconds(self.answers, self.prompt_tokens, tokens)


@dataclass(frozen=True)
class Seconds:
    """A time with its interval."""

    seconds: float
    low: float
    high: float

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.seconds + other.seconds, self.low + other.low, self.high + other.high)


def asking_seconds(one: Asking) -> Seconds:
    """The time of an arm: of its mean length, and of the ends of the length's interval at the ends of the rate's."""
    width = max(0.1, 2 * one.rate.spread)
    return Seconds(
        one.seconds(one.length.mean), (1 - min(0.9, width)) * one.seconds(one.length.low),
        (1 + width) * one.seconds(one.length.high),
    )  # fmt: skip
