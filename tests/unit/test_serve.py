"""From settings to a listening process: addresses, limits and warnings."""

from __future__ import annotations

import logging
import resource
import socket
from typing import Any

import pytest

from fivescore import serve
from fivescore.errors import ConfigurationError
from fivescore.settings import Settings

KEY = "a-key-of-sixteen"
dual_stack = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this host has no IPv6")


@pytest.mark.parametrize(
    ("host", "reached_by"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("0.0.0.0", ["127.0.0.1"]),
        ("localhost", ["localhost"]),
        pytest.param("::", ["::1", "127.0.0.1"], marks=dual_stack),
        pytest.param("::1", ["::1"], marks=dual_stack),
    ],
)
def test_an_address_is_reached_by_every_protocol_that_it_stands_for(
    host: str, reached_by: list[str]
) -> None:
    with serve.listen(host, 0) as listener:
        for address in reached_by:
            socket.create_connection((address, listener.getsockname()[1]), timeout=10).close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_cannot_be_listened_on_is_named(host: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^cannot listen on {host} port 0: ."):
        serve.listen(host, 0)


def test_the_kernel_queues_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    create = socket.create_server

    def recorded(*arguments: Any, **options: Any) -> socket.socket:
        asked.append(options["backlog"])
        return create(*arguments, **options)

    monkeypatch.setattr(socket, "create_server", recorded)
    serve.listen("127.0.0.1", 0).close()
    assert asked[0] >= 2048


def test_an_idle_connection_is_kept_longer_than_trainers_keep_theirs() -> None:
    config = serve._Server(Settings(backend="fake")).config
    assert config.timeout_keep_alive >= 75
    assert config.limit_concurrency is None
    assert config.limit_max_requests is None
    assert config.backlog >= 2048


@pytest.mark.parametrize(
    ("host", "settings", "said"),
    [
        ("0.0.0.0", {}, "NO KEYS ARE SET"),
        ("192.0.2.7", {}, "NO KEYS ARE SET"),
        ("::", {}, "NO KEYS ARE SET"),
        ("0.0.0.0", {"api_key": KEY}, ""),
        ("0.0.0.0", {"api_key_file": "/a/file"}, ""),
        ("0.0.0.0", {"api_key": KEY, "open_routes": "/metrics"}, "can use /metrics"),
        ("127.0.0.1", {}, ""),
        ("::1", {}, ""),
        ("127.0.0.1", {"api_key": KEY, "open_routes": "/metrics"}, ""),
    ],
)
def test_what_a_network_can_reach_without_a_key_is_warned_of(
    host: str, settings: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "fivescore"):
        serve.warn_of_open_access(Settings(**settings), host, 8000)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * bool(said)
    assert said in caplog.text
    assert not said or host in caplog.text


@pytest.mark.parametrize(
    ("files", "most"), [(10_000, 2000), (1024, 768), (193, 1), (resource.RLIM_INFINITY, 2000)]
)
def test_connections_are_limited_to_what_the_open_files_allow(files: int, most: int) -> None:
    settings = serve._within_file_limit(Settings(max_connections=2000), files)
    assert settings.max_connections == most


def test_too_few_open_files_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^ulimit -n allows this process 192 "):
        serve._within_file_limit(Settings(), 192)
