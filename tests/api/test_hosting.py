"""The port before it is served."""

from __future__ import annotations

import socket

import pytest

from journeyman.api.hosting import open_listener, take_connections
from journeyman.errors import UsageError


def test_the_second_of_two_servers_that_start_together_is_told_that_the_port_is_taken() -> None:
    with open_listener("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with open_listener("127.0.0.1", port) as second:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))  # neither is ready
            take_connections(first, "127.0.0.1")
            with pytest.raises(UsageError, match=rf"port {port} on 127\.0\.0\.1: .*--port 0"):
                take_connections(second, "127.0.0.1")
        with pytest.raises(UsageError, match="--port 0"):  # one that starts later does not load an engine
            open_listener("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_another_port_is_no_remedy_for_a_wrong_host(host: str) -> None:
    with pytest.raises(UsageError, match=r"serve\.host") as refused:
        open_listener(host, 0)
    assert "--port" not in str(refused.value)
