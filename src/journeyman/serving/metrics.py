"""Counters and histograms of the server, and their text for Prometheus.

https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4). Nothing in it is content: labels are
the roles that are served, the APIs, status codes and names of this server's own.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
Labels = tuple[str, ...]


@dataclass
class Counter:
    """A number that only grows, for each combination of labels."""

    name: str
    what: str
    labels: Sequence[str] = ()
    values: dict[Labels, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, *labels: str, by: float = 1) -> None:
        self.values[labels] += by

    def lines(self) -> Iterator[str]:
        yield from _head(self.name, self.what, "counter")
        if not self.labels and not self.values:
            yield f"{self.name} 0"
        for labels, value in sorted(self.values.items()):
            yield f"{self.name}{_labels(dict(zip(self.labels, labels, strict=True)))} {_number(value)}"


@dataclass
class Histogram:
    """Durations in seconds, for each combination of labels."""

    name: str
    what: str
    labels: Sequence[str] = ()
    counts: dict[Labels, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0] * (len(_SECONDS) + 1)))
    sums: dict[Labels, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, seconds: float, *labels: str) -> None:
        self.counts[labels][bisect.bisect_left(_SECONDS, seconds)] += 1
        self.sums[labels] += seconds

    def lines(self) -> Iterator[str]:
        yield from _head(self.name, self.what, "histogram")
        for labels, counts in sorted(self.counts.items()):
            named = dict(zip(self.labels, labels, strict=True))
            below = 0
            for bound, count in zip((*map(_number, _SECONDS), "+Inf"), counts, strict=True):
                below += count
                yield f"{self.name}_bucket{_labels({**named, 'le': bound})} {below}"
            yield f"{self.name}_sum{_labels(named)} {self.sums[labels]!r}"
            yield f"{self.name}_count{_labels(named)} {below}"


@dataclass(frozen=True)
class Gauge:
    """A value without labels that is read when the page is made."""

    name: str
    what: str
    value: float
    kind: str = "gauge"

    def lines(self) -> Iterator[str]:
        yield from _head(self.name, self.what, self.kind)
        yield f"{self.name} {_number(self.value)}"


class Metrics:
    """All of them. They are changed by one thread only, that of the event loop."""

    def __init__(self) -> None:
        self.requests = Counter(
            "journeyman_requests_total", "Requests by role, API and HTTP status; 499: the client left",
            ("role", "api", "status"),
        )  # fmt: skip
        self.broken = Counter(
            "journeyman_streams_broken_total",
            "Streams that ended with an error event after status 200",
            ("role", "api"),
        )
        self.prompt_tokens = Counter("journeyman_prompt_tokens_total", "Tokens of prompts", ("role",))
        self.cached_tokens = Counter("journeyman_cached_tokens_total", "Tokens of prompts that were cached", ("role",))
        self.answer_tokens = Counter("journeyman_answer_tokens_total", "Tokens of answers", ("role",))
        self.differences = Counter(
            "journeyman_prompt_differences_total", "Prompts that differ from those of the role's training",
            ("role", "difference"),
        )  # fmt: skip
        self.queue_s = Histogram("journeyman_queue_seconds", "Time in the queue", ("role",))
        self.first_token_s = Histogram(
            "journeyman_first_token_seconds", "Time from the request to the first event of a stream", ("role",)
        )
        self.request_s = Histogram("journeyman_request_seconds", "Time from the request to its last byte", ("role",))

    def text(self, gauges: Sequence[Gauge] = ()) -> str:
        """The page."""
        return "\n".join(line for one in (*vars(self).values(), *gauges) for line in one.lines()) + "\n"


def _head(name: str, what: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {what}"
    yield f"# TYPE {name} {kind}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
