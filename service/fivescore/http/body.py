"""Bodies of requests and answers: JSON, read within limits."""

from __future__ import annotations

import itertools
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from fivescore.errors import BodyTooLarge, ClientGone, InvalidRequest, TooManyPairs
from fivescore.http import slices
from fivescore.http.budget import Budget
from fivescore.http.slices import MOST_DEPTH, TOO_DEEP
from fivescore.settings import Settings

Body = bytes | bytearray
MOST_ENTRIES = 10_000
"""Limit on each list in a body, unless it holds token ids or ``max_pairs`` allows more."""
MOST_MEMBERS = 1000
"""Limit on a body's own members: the answer names each one that is unknown."""
LARGE = 2**18
"""Bytes of a body up to which it is read on the event loop, in milliseconds at most."""
_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[{]}", b"\2\2\0\0")
"""What a bracket adds to the depth, and one more."""


def check_members(body: Any, limits: Settings) -> None:
    """Check a parsed body's own members, and the lists among them.

    Raises:
        InvalidRequest: the body is an object of more than ``MOST_MEMBERS``.
        TooManyPairs: one of its lists has more entries than any request may have pairs.
    """
    if not isinstance(body, dict):
        return
    most = max(MOST_ENTRIES, limits.max_pairs)
    if len(body) > MOST_MEMBERS:
        raise InvalidRequest(
            f"the body has {len(body)} members, the limit is {MOST_MEMBERS}: send only those"
            " that the route knows",
            limit=MOST_MEMBERS,
        )
    for name, value in body.items():
        if isinstance(value, list) and len(value) > most and not _are_ids(value):
            raise TooManyPairs(
                f"{name[:40]}: {len(value)} entries in one request, the limit is {most}"
                " (max_pairs): split it",
                limit=most,
            )


def _are_ids(values: list[Any]) -> bool:
    return all(type(value) is int for value in values)


async def read_body(request: Request, limits: Settings) -> Body:
    """The request's body.

    Raises:
        BodyTooLarge: the body, or the length that it declares, is over ``max_body_bytes``; no more
            of it is read.
        Overloaded: the bodies that are being received are over ``max_receiving_bytes``.
        ClientGone: the client closed the connection before the end of the body.
    """
    budget: Budget = request.app.state.budget
    body, most_bytes = bytearray(), limits.max_body_bytes
    declared = request.headers.get("Content-Length", "")
    if declared.isdecimal():
        _check_size(int(declared), most_bytes)
    try:
        with budget.lease() as lease:
            async for chunk in request.stream():
                _check_size(len(body) + len(chunk), most_bytes)
                lease.grow(len(chunk))
                body += chunk
            return body
    except ClientDisconnect as error:
        raise ClientGone("the client closed the connection before its request was read") from error


def _check_size(size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise BodyTooLarge(
            f"the body is larger than {most_bytes} bytes (max_body_bytes): split the request",
            limit=most_bytes,
        )


def is_large(body: Body) -> bool:
    """Whether reading a body could stop the event loop for more than some milliseconds."""
    return len(body) > LARGE


def parse_json(body: Body) -> Any:
    """Parse JSON, lone surrogates included: they make only their own pair invalid.

    Raises:
        InvalidRequest: the body is not JSON, holds NaN or Infinity, is nested more than
            ``MOST_DEPTH`` deep, or passes another limit of ``slices``.
    """
    if is_large(body):
        return slices.read(body)
    if _is_too_deep(body):
        raise InvalidRequest(TOO_DEEP, limit=MOST_DEPTH)
    return slices.loads(body)


def _is_too_deep(body: Body) -> bool:
    if body.count(b"[") + body.count(b"{") <= MOST_DEPTH:
        return False
    if _closes_within(body.translate(None, _BUT_BRACKETS), MOST_DEPTH // 2):
        return False
    # Strings hold brackets that do not close, or it is deep, or no JSON.
    rest = body.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in body else body
    steps = b"".join(rest.split(b'"')[::2]).translate(_STEPS, _BUT_BRACKETS)
    depths = itertools.accumulate(step - 1 for step in steps)
    return max(depths, default=0) > MOST_DEPTH


def _closes_within(brackets: Body, rounds: int) -> bool:
    """Whether nothing is left of brackets whose innermost are taken away so many times.

    Each round takes one or two levels, so that few do for any usual body.
    """
    for _ in range(rounds):
        left = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(left) == len(brackets):
            break
        brackets = left
    return not brackets


def json_response(content: Any, status: int = 200) -> Response:
    """A JSON response; its floats are the shortest that read back the same."""
    return json_written(slices.dumps(content), status)


def json_written(content: bytes | bytearray, status: int = 200) -> Response:
    """A response of what is JSON already."""
    return Response(memoryview(content), status, media_type="application/json")
