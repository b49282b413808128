"""Bodies: bounded reading, JSON in, JSON out."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from fivescore.errors import BodyTooLarge, ClientGone, InvalidRequest, TooManyPairs

MOST_ENTRIES = 10_000
"""Of each list of a body that is no list of token ids, where ``max_pairs`` does not allow more."""
MOST_MEMBERS = 1000
"""Of a body itself: each that is not known is told of in the answer."""
MOST_NODES = 2**22
"""Arrays, objects, members and texts of one body: 10,000 pairs of 50 turns have 3.5 million. Each
takes up to a hundred times the memory that it has in the body, and time that everybody waits."""
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""The end is optional, so that a body of quotes without one is read once and not from each."""


async def read_json(request: Request, most_bytes: int) -> Any:
    """The request's body as JSON, whatever its Content-Type says (``curl -d`` sends a form's).

    Raises:
        BodyTooLarge: it has more than ``most_bytes``, or says so before; stops reading there.
        InvalidRequest: it is not JSON, or an object of more than ``MOST_MEMBERS``.
        TooManyPairs: it has more than any request may, which shows before each is looked at.
        ClientGone: the client closed the connection before the end.
    """
    body = parse_json(await _read(request, most_bytes))
    if isinstance(body, dict):
        _check_members(body, max(MOST_ENTRIES, request.app.state.settings.max_pairs))
    return body


def _check_members(body: dict[str, Any], most: int) -> None:
    if len(body) > MOST_MEMBERS:
        raise InvalidRequest(
            f"the body has {len(body)} members, the limit is {MOST_MEMBERS}: send no more than the"
            " route knows",
            limit=MOST_MEMBERS,
        )
    for name, value in body.items():
        if isinstance(value, list) and len(value) > most and set(map(type, value)) != {int}:
            raise TooManyPairs(
                f"{name[:40]}: {len(value)} entries in one request, the limit is {most}"
                " (max_pairs): split it",
                limit=most,
            )


async def _read(request: Request, most_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
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
    """JSON of any client; a text that holds half of a surrogate pair is left for its own pair.

    Nesting is bounded by the parsers: 1024 levels of orjson's, about 1000 of Python's.

    Raises:
        InvalidRequest: it is not JSON, has NaN or Infinity in it, or more than ``MOST_NODES``.
    """
    if _has_too_many_nodes(body):
        raise InvalidRequest(
            f"the body has more than {MOST_NODES} arrays, objects, members and texts: split the"
            " request",
            limit=MOST_NODES,
        )
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as first:
        # Python's json writes lone surrogates, and orjson refuses the whole body for one.
        if b"\\ud" not in body and b"\\uD" not in body:
            raise InvalidRequest(f"the body is not JSON: {first}") from first
    try:
        return json.loads(body, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error


def _has_too_many_nodes(body: bytes) -> bool:
    marks = _marks(body)
    if marks + body.count(b'"') // 2 <= MOST_NODES:  # as good as always, and in no time
        return False
    rest, texts = _TEXT.subn(b"", body, MOST_NODES + 1)
    return texts + _marks(rest) > MOST_NODES


def _marks(body: bytes) -> int:
    """What arrays, objects and members begin with; texts may hold more of them."""
    return body.count(b"[") + body.count(b"{") + body.count(b":")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _finite(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise ValueError(f"{digits} is too large for a number")
    return number


def json_response(content: Any, status: int = 200) -> Response:
    """Shortest floats that read back the same; no NaN can be in ``content``.

    Raises:
        InvalidRequest: the content repeats a body that is nested too deeply to be written.
    """
    try:
        body = orjson.dumps(content)
    except TypeError:  # orjson reads halves of surrogate pairs and deep nesting, but writes neither
        try:
            body = json.dumps(content, allow_nan=False).encode()
        except RecursionError as error:
            raise InvalidRequest("the body is nested too deeply: flatten it") from error
    return Response(body, status, media_type="application/json")
