"""Bodies of requests and answers: JSON, read within limits."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from fivescore.errors import BodyTooLarge, ClientGone, InvalidRequest, TooManyPairs
from fivescore.settings import Settings

MOST_ENTRIES = 10_000
"""Limit on each list in a body, unless it holds token ids or ``max_pairs`` allows more."""
MOST_MEMBERS = 1000
"""Limit on a body's own members: the answer names each one that is unknown."""
MOST_NODES = 2**22
"""Limit on the arrays, objects, members and strings of one body; 10,000 pairs of 50 turns have 3.5
million. Each takes up to a hundred times the memory of its bytes, and blocks the event loop."""
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""A JSON string. Its closing quote is optional, so that a body of unclosed quotes is scanned once
and not from each quote again."""


async def read_json(request: Request, limits: Settings) -> Any:
    """The request's body as JSON, whatever its Content-Type (``curl -d`` sends a form's).

    Raises:
        FivescoreError: what ``read_body`` and ``checked_json`` raise.
    """
    return checked_json(await read_body(request, limits), limits)


def checked_json(body: bytes, limits: Settings) -> Any:
    """A request's body as JSON, its own members and lists within limits.

    Raises:
        InvalidRequest: as ``parse_json``; or the body is an object of more than ``MOST_MEMBERS``.
        TooManyPairs: one of its lists has more entries than any request may have pairs.
    """
    content = parse_json(body)
    if isinstance(content, dict):
        _check_members(content, max(MOST_ENTRIES, limits.max_pairs))
    return content


def _check_members(body: dict[str, Any], most: int) -> None:
    if len(body) > MOST_MEMBERS:
        raise InvalidRequest(
            f"the body has {len(body)} members, the limit is {MOST_MEMBERS}: send only those"
            " that the route knows",
            limit=MOST_MEMBERS,
        )
    for name, value in body.items():
        if isinstance(value, list) and len(value) > most and set(map(type, value)) != {int}:
            raise TooManyPairs(
                f"{name[:40]}: {len(value)} entries in one request, the limit is {most}"
                " (max_pairs): split it",
                limit=most,
            )


async def read_body(request: Request, limits: Settings) -> bytes:
    """The request's body.

    Raises:
        BodyTooLarge: the body, or the length that it declares, is over ``max_body_bytes``; no more
            of it is read.
        ClientGone: the client closed the connection before the end of the body.
    """
    chunks: list[bytes] = []
    size, most_bytes = 0, limits.max_body_bytes
    declared = request.headers.get("Content-Length", "")
    if declared.isdecimal():
        _check_size(int(declared), most_bytes)
    try:
        async for chunk in request.stream():
            size += len(chunk)
            _check_size(size, most_bytes)
            chunks.append(chunk)
    except ClientDisconnect as error:
        raise ClientGone("the client closed the connection before its request was read") from error
    return b"".join(chunks)


def _check_size(size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise BodyTooLarge(
            f"the body is larger than {most_bytes} bytes (max_body_bytes): split the request",
            limit=most_bytes,
        )


def parse_json(body: bytes) -> Any:
    """Parse JSON, lone surrogates included: they make only their own pair invalid.

    The parsers bound the nesting: orjson at 1024 levels, Python's at about 1000.

    Raises:
        InvalidRequest: the body is not JSON, holds NaN or Infinity, or has over ``MOST_NODES``.
    """
    if _has_too_many_nodes(body):
        raise InvalidRequest(
            f"the body has more than {MOST_NODES} arrays, objects, members and strings: split the"
            " request",
            limit=MOST_NODES,
        )
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as first:
        # Python's json writes lone surrogates, for which orjson refuses the whole body.
        if b"\\ud" not in body and b"\\uD" not in body:
            raise InvalidRequest(f"the body is not JSON: {first}") from first
    try:
        return json.loads(body, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error


def _has_too_many_nodes(body: bytes) -> bool:
    marks = _marks(body)
    if marks + body.count(b'"') // 2 <= MOST_NODES:  # almost always, and fast
        return False
    rest, texts = _TEXT.subn(b"", body, MOST_NODES + 1)
    return texts + _marks(rest) > MOST_NODES


def _marks(body: bytes) -> int:
    """How many characters may begin an array, object or member; those in strings count too."""
    return body.count(b"[") + body.count(b"{") + body.count(b":")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _finite(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise ValueError(f"{digits} is too large for a number")
    return number


def json_response(content: Any, status: int = 200) -> Response:
    """A JSON response; its floats are the shortest that read back the same.

    Raises:
        InvalidRequest: ``content`` repeats a body that is nested too deeply to be written.
    """
    try:
        body = orjson.dumps(content)
    except TypeError:  # orjson does not write lone surrogates and deep nesting
        try:
            body = json.dumps(content, allow_nan=False).encode()
        except RecursionError as error:
            raise InvalidRequest("the body is nested too deeply: flatten it") from error
    return Response(body, status, media_type="application/json")
