"""Every part of uvicorn that ``connection`` and ``serve`` use and it does not document, checked.

``Connection`` subclasses uvicorn's protocol, and ``serve`` its server, whose parts may change with
any release. Without the limits of ``Connection`` one client could exhaust the service, so there is
no fallback: with a uvicorn that lacks a part the service does not start, and says which part it is.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import uvicorn

from fivescore.errors import ConfigurationError


def _misfit(part: object) -> ConfigurationError:
    return ConfigurationError(
        f"uvicorn {uvicorn.__version__} does not fit this fivescore ({part}): install the version"
        " that fivescore requires, pip install 'fivescore[cpu]' or 'fivescore[gpu]'"
    )


try:
    from uvicorn.protocols.http.flow_control import FlowControl
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
    from uvicorn.server import Server, ServerState
except ImportError as error:
    raise _misfit(error) from error

__all__ = ["HttpToolsProtocol", "RequestResponseCycle", "Server", "check"]

METHODS: dict[type, dict[str, tuple[str, ...]]] = {
    HttpToolsProtocol: {
        "connection_made": ("transport",),
        "connection_lost": ("exc",),
        "data_received": ("data",),
        "pause_writing": (),
        "on_message_begin": (),
        "on_url": ("url",),
        "on_header": ("name", "value"),
        "on_headers_complete": (),
        "on_body": ("body",),
        "on_message_complete": (),
        "on_response_complete": (),
        "_unset_keepalive_if_required": (),
    },
    Server: {
        "run": ("sockets",),
        "serve": ("sockets",),
        "capture_signals": (),
        "handle_exit": ("sig", "frame"),
    },
}
"""The methods that are overridden or called, and their parameters.

``capture_signals`` is neither: it is what calls ``handle_exit``.
"""
ATTRIBUTES: dict[type, tuple[str, ...]] = {
    HttpToolsProtocol: (
        "client", "connections", "cycle", "expect_100_continue", "flow", "headers", "loop",
        "parser", "pipeline", "server_state", "timeout_keep_alive", "transport", "url",
    ),
    RequestResponseCycle: (
        "disconnected", "keep_alive", "message_event", "response_complete", "response_started",
        "scope", "transport",
    ),
    FlowControl: ("read_paused",),
    ServerState: ("connections", "default_headers"),
    Server: ("config", "server_state", "should_exit"),
    uvicorn.Config: ("timeout_graceful_shutdown",),
}  # fmt: skip
"""The attributes that are read or set."""


def check() -> None:
    """Check that uvicorn has every part that is listed, with the same parameters.

    Raises:
        ConfigurationError: a part is missing or has other parameters; names the first.
    """
    for part in _differences():
        raise _misfit(part)


def _differences() -> Iterator[str]:
    for owner, methods in METHODS.items():
        for name, expected in methods.items():
            method = vars(owner).get(name)  # an inherited one would be asyncio's, and do nothing
            if method is None:
                yield f"{owner.__name__} has no {name}"
            elif tuple(inspect.signature(method).parameters)[1:] != expected:
                yield f"{owner.__name__}.{name} has other parameters"
    try:
        instances = _instances()
    except (TypeError, AttributeError) as error:
        yield str(error)
        return
    for instance in instances:
        for name in ATTRIBUTES[type(instance)]:
            if not hasattr(instance, name):
                yield f"{type(instance).__name__} has no {name}"


def _instances() -> tuple[Any, ...]:
    """One object of each class in ``ATTRIBUTES``, made as uvicorn makes it."""
    config = uvicorn.Config(_no_app, ws="none", lifespan="off", log_config=None)
    server = Server(config)
    state = server.server_state
    loop = asyncio.new_event_loop()
    try:
        protocol = HttpToolsProtocol(config=config, server_state=state, app_state={}, _loop=loop)
    finally:
        loop.close()
    protocol.on_message_begin()
    nothing: Any = None
    cycle = RequestResponseCycle(
        scope=protocol.scope, transport=nothing, flow=nothing, logger=nothing,
        access_logger=nothing, access_log=False, default_headers=[], message_event=nothing,
        expect_100_continue=False, keep_alive=True, on_response=lambda: None,
    )  # fmt: skip
    return protocol, cycle, FlowControl(nothing), state, server, config


async def _no_app(scope: object, receive: object, send: object) -> None:
    """An app that is never called."""
