"""Which requests are retried, after how long, and which are not."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_http import Asked, Reply, fake_http, json_reply
from journeyman.errors import Interrupted
from journeyman.http_client import (
    DROPPED,
    PASSING,
    BrokenAnswer,
    Refused,
    Retry,
    client,
    engine_client,
    posted,
    with_retries,
)

QUICK = Retry(first_wait_s=0.01, most_wait_s=2.0)


def ok(_: Asked) -> Reply:
    return json_reply({"ok": True})


def text_of(response: httpx.Response, start: float) -> str:
    assert start <= time.perf_counter()
    return response.read().decode()


def refused(status: int = 429, after: str | None = None) -> Refused:
    return Refused(httpx.Response(status, headers={} if after is None else {"retry-after": after}), "busy")


@pytest.mark.parametrize(
    "first",
    [[Reply(status=503)], [Reply(status=429), Reply(status=500)], [Reply(drop=True)], [Reply(drop=True)] * 4],
)
def test_what_may_pass_is_asked_again(first: list[Reply]) -> None:
    with fake_http(ok, first) as server, client({}, 5) as http:
        assert posted(http, server.url, {"a": 1}, text_of, QUICK) == '{"ok": true}'
    assert len(server.asked) == len(first) + 1 and all(one.json == {"a": 1} for one in server.asked)


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 413, 422, 501])
def test_a_refusal_is_final(status: int) -> None:
    with (
        fake_http(ok, [Reply("no such model", status)]) as server,
        client({}, 5) as http,
        pytest.raises(Refused, match=f"{status} no such model"),
    ):
        posted(http, server.url, {}, text_of, QUICK)
    assert len(server.asked) == 1


def test_tries_come_to_an_end_and_the_last_failure_is_told() -> None:
    with fake_http(lambda _: Reply("busy", 503)) as server, client({}, 5) as http:
        with pytest.raises(Refused, match="503 busy"):
            posted(http, server.url, {}, text_of, QUICK)
        assert len(server.asked) == QUICK.tries
    with client({}, 5) as http, pytest.raises(httpx.ConnectError):
        posted(http, server.url, {}, text_of, QUICK)


def test_a_server_that_takes_too_long_is_not_asked_twice() -> None:
    def slow(_: Asked) -> Reply:
        time.sleep(0.5)
        return Reply("late")

    with fake_http(slow) as server, client({}, 0.1) as http:
        with pytest.raises(httpx.ReadTimeout):
            posted(http, server.url, {}, text_of, QUICK)
        assert len(server.asked) == 1, "it is still at work on the first"


def test_an_answer_that_breaks_off_is_asked_again() -> None:
    def whole(response: httpx.Response, start: float) -> str:
        if (text := text_of(response, start)) != "whole":
            raise BrokenAnswer(text)
        return text

    with fake_http(lambda _: Reply("whole"), [Reply("ha"), Reply("hal")]) as server, client({}, 5) as http:
        assert posted(http, server.url, {}, whole, QUICK) == "whole" and len(server.asked) == 3


def test_the_server_says_how_long_to_wait() -> None:
    with fake_http(ok, [Reply(status=429, headers={"Retry-After": "1"})]) as server, client({}, 5) as http:
        start = time.monotonic()
        posted(http, server.url, {}, text_of, QUICK)
        assert time.monotonic() - start >= 1
    with fake_http(ok, [Reply("later", 429, {"Retry-After": "3600"})]) as server, client({}, 5) as http:
        with pytest.raises(Refused, match=r"asks to wait 3600 s\) later"):
            posted(http, server.url, {}, text_of, QUICK)
        assert len(server.asked) == 1, "longer than anyone waits"


def test_retry_after_is_read_in_both_forms_and_nothing_else_is_believed() -> None:
    soon = refused(after=format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)).retry_after_s
    assert soon is not None and 25 < soon <= 30
    assert refused(after=format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)).retry_after_s == 0
    assert refused(after=" 7 ").retry_after_s == 7
    for nonsense in ("", "-1", "1e9", "nan", "inf", "soon", "9" * 50, "Mon, 99 Foo 2020"):
        assert refused(after=nonsense).retry_after_s is None, nonsense


@given(st.integers(1, 60), st.floats(0, 1), st.sampled_from(sorted(PASSING)))
def test_waits_grow_spread_and_stay_bounded(tried: int, chance: float, status: int) -> None:
    retry = Retry(tries=61, first_wait_s=0.5, most_wait_s=60, chance=lambda: chance)
    wait = retry.wait_s(tried, refused(status))
    most = min(60, 0.5 * 2 ** (tried - 1))
    assert wait is not None and most / 2 <= wait <= most
    asked = retry.wait_s(tried, refused(status, "20"))
    assert asked is not None and 20 <= asked <= 22, "never less than the server asks"
    assert retry.wait_s(61, refused(status)) is None


def test_which_failures_are_worth_another_try() -> None:
    retry = Retry()
    assert all(retry.wait_s(1, error("x")) is not None for error in DROPPED)
    for error in (httpx.ReadTimeout, httpx.UnsupportedProtocol, httpx.DecodingError, httpx.TooManyRedirects):
        assert retry.wait_s(1, error("x")) is None, error


def test_a_wait_can_be_given_up() -> None:
    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        if len(looks) == 3:
            raise Interrupted("stopped")

    with fake_http(lambda _: Reply(status=429, headers={"Retry-After": "30"})) as server, client({}, 5) as http:
        start = time.monotonic()
        with pytest.raises(Interrupted):
            posted(http, server.url, {}, text_of, Retry(), look)
        assert time.monotonic() - start < 5 and len(server.asked) == 1


def test_what_makes_no_sense_any_more_is_not_tried() -> None:
    tries: list[int] = []

    def attempt() -> None:
        tries.append(1)
        raise httpx.ConnectError("gone")

    with pytest.raises(httpx.ConnectError):
        with_retries(attempt, QUICK, again=lambda: len(tries) < 2)
    assert len(tries) == 2


def test_the_engine_is_reached_past_any_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with fake_http(ok) as server, engine_client(server.address, {"x-key": "k"}, 5) as http:
        assert http.get("/health").status_code == 200
    assert server.asked[0].headers["x-key"] == "k" and server.asked[0].path == "/health"
