"""Which conversations are the teacher's while they go on, so that a change of the route leaves them there.

A canary draws a conversation when it begins. One that began before the canary, or that the canary gave to the teacher
before the student was promoted, would otherwise change from one to the other in its middle.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from journeyman.routing.assigning import MOST, Arm, Assignments, digest_of


class Running:
    """The teacher's conversations of which a request came within `idle_s` seconds.

    Those that were drawn in a canary are remembered across restarts; after one, their time begins anew.
    """

    def __init__(self, arms: Assignments, idle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._arms, self._idle_s, self._clock = arms, idle_s, clock
        now = clock()
        self._teachers = OrderedDict((digest, now) for digest, arm in arms.latest().items() if arm == "teacher")
        self._canaries: dict[tuple[str, int], float] = {}

    def answered(self, conversation: str, arm: Arm) -> None:
        """An arm answers a request of the conversation."""
        digest, now = digest_of(conversation), self._clock()
        self._teachers.pop(digest, None)
        if arm == "teacher":
            self._teachers[digest] = now
        while self._teachers:
            oldest = next(iter(self._teachers))
            if len(self._teachers) <= MOST and now - self._teachers[oldest] < self._idle_s:
                break
            del self._teachers[oldest]

    def is_teachers(self, conversation: str) -> bool:
        """Whether the teacher has answered it, and it has not been idle since."""
        at = self._teachers.get(digest_of(conversation))
        return at is not None and self._clock() - at < self._idle_s

    def began_before(self, role: str, trial: int, conversation: str) -> bool:
        """Whether a conversation whose first turns have been answered began before a canary.

        In the first `idle_s` seconds of the canary, or after a restart, that holds for each that has no arm: it may
        have begun where the recorder did not look. Later, a conversation that the teacher has not answered since is a
        new one whose request has examples in it.
        """
        began = self._canaries.setdefault((role, trial), self._clock())
        if self._arms.known(trial, conversation):
            return False
        return self._clock() - began < self._idle_s or self.is_teachers(conversation)
