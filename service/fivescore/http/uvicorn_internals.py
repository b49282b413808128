"""Every part of uvicorn that ``connection`` uses and uvicorn does not document, and its check.

``Connection`` subclasses uvicorn's protocol, whose parts may change with any release. Without its
limits one client could exhaust the service, so there is no fallback: with a uvicorn that lacks a
part the service does not start, and says which part that is.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import uvicorn

from fivescore.errors import ConfigurationError

try:
    from uvicorn.protocols.http.flow_control import FlowControl
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
    from uvicorn.server import ServerState
except ImportError as error:
    raise ConfigurationError(
        f"uvicorn {uvicorn.__version__} does not fit this fivescore ({error}): pip install"
        " 'fivescore[cpu]' or 'fivescore[gpu]' again"
    ) from error

__all__ = ["HttpToolsProtocol", "RequestResponseCycle", "check"]

METHODS = {
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
}
"""Methods of the protocol that are overridden or called, with their parameters."""
PROTOCOL = (
    "client", "connections", "cycle", "expect_100_continue", "flow", "headers", "loop", "parser",
    "pipeline", "server_state", "timeout_keep_alive", "transport", "url",
)  # fmt: skip
CYCLE = (
    "disconnected", "keep_alive", "message_event", "response_complete", "response_started", "scope",
    "transport",
)  # fmt: skip
FLOW = ("read_paused",)
STATE = ("connections", "default_headers")
"""Attributes of the protocol, of one request's cycle, of its flow control, of the server."""


def check() -> None:
    """Check that uvicorn has every part that ``connection`` uses, with the same parameters.

    Raises:
        ConfigurationError: a part is missing or has other parameters; names the first.
    """
    for part in _differences():
        raise ConfigurationError(
            f"uvicorn {uvicorn.__version__} does not fit this fivescore ({part}): install the"
            " version that fivescore requires, pip install 'fivescore[cpu]' or 'fivescore[gpu]'"
        )


def _differences() -> Iterator[str]:
    for name, expected in METHODS.items():
        method = getattr(HttpToolsProtocol, name, None)
        if method is None:
            yield f"its protocol has no {name}"
        elif tuple(inspect.signature(method).parameters)[1:] != expected:
            yield f"its protocol's {name} has other parameters"
    try:
        instances = _instances()
    except (TypeError, AttributeError) as error:
        yield str(error)
        return
    for instance, attributes in instances:
        for name in attributes:
            if not hasattr(instance, name):
                yield f"its {type(instance).__name__} has no {name}"


def _instances() -> Iterator[tuple[Any, tuple[str, ...]]]:
    """One object of each class, made as uvicorn makes it, and the attributes it should have."""
    state = ServerState()
    config = uvicorn.Config(_no_app, ws="none", lifespan="off", log_config=None)
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
        expect_100_continue=False, keep_alive=True, on_response=_no_app,
    )  # fmt: skip
    return iter(
        ((protocol, PROTOCOL), (cycle, CYCLE), (FlowControl(nothing), FLOW), (state, STATE))
    )


async def _no_app(*_: object) -> None:
    """An app that is never called."""
