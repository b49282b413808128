"""Reads, writes and frees large JSON in slices: one call for all would stop every thread.

The body is scanned for brackets and strings. What lies between two commas or brackets of one level
is parsed by orjson as soon as it is about ``SLICE`` bytes long. An array, object or string that is
longer itself is taken apart, and a 0 stands for it in what is parsed around it: so orjson, which
sees every byte, decides what is JSON.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from typing import Any, NoReturn

import orjson

from fivescore.errors import InvalidRequest

SLICE = 2**16
"""Bytes that are parsed at once, in about a millisecond."""
MOST_NODES = 2**22
"""Limit on the arrays, objects and strings of one body, names too; 2^17 messages have
0.7 million. Each takes up to a hundred times the memory of its bytes."""
MOST_DEPTH = 100
"""Limit on the arrays and objects of a body that lie in each other. orjson reads 1024, more than
Python's own limit on calls lets ``str`` or ``json`` handle afterwards."""
MOST_NAMES = 2**15
"""Limit on the members of one object: an error may list each."""
MOST_SCALAR = 8 * SLICE
"""Bytes of numbers and white space between two commas or brackets."""

FEW = 1000
"""Entries of a list that are written or freed at once."""

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_OTHERS = rb'[^"\[\]{}]'
_TOKEN = re.compile(
    rb"%b{0,%d}+(?:([\[{]%b*+(?:%b%b*+)*+[\]}])|([\[{])|([\]}])|(%b)|(\"))?"
    % (_OTHERS, SLICE, _OTHERS, _STRING, _OTHERS, _STRING),
    re.DOTALL,
)
_FLAT, _OPEN, _CLOSE, _TEXT, _LONG = 1, 2, 3, 4, 5
"""Its groups: an array or object without others in it, a bracket, a string, a long string's start.
"""
_WINDOW = 2 * SLICE
"""Bytes that are looked at for a token; what does not end in it is long."""
_PART = re.compile(rb'(?:[^"\\]++|\\(?:u[0-9a-fA-F]{4}|[^u]))*+', re.DOTALL)
_REST = re.compile(rb"[\x80-\xbf]{0,3}+(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?+")
"""What belongs to a part's last character: the end of its UTF-8, or of a surrogate pair."""
_QUOTES = re.compile(_STRING, re.DOTALL)
_ZERO = secrets.token_hex(8)
"""The name of the member that stands for those of an object that are parsed already."""


class _Level:
    """An array or object that is not closed yet."""

    __slots__ = ("after", "at", "is_object", "name", "opened", "text", "value")

    def __init__(self, opened: int, is_object: bool, name: tuple[int, int]) -> None:
        self.opened = opened
        self.is_object = is_object
        self.name = name
        """Where its own name in the level around it begins and ends, if that is an object."""
        self.text = (opened, opened)
        """Where its last string that was seen begins and ends."""
        self.at = opened + 1
        """Where what is not parsed yet begins."""
        self.after = False
        """Whether something of it was parsed before ``at``."""
        self.value: Any = None
        """What was parsed of it; None while nothing was taken out of it."""

    def take_apart(self) -> None:
        self.value = {} if self.is_object else []

    def add(self, name: str, value: Any) -> None:
        if self.is_object:
            self.value[name] = value
        else:
            self.value.append(value)


def read(body: bytes | bytearray) -> Any:
    """The value of a JSON body.

    Raises:
        InvalidRequest: it is not JSON, or passes a limit of this module.
    """
    reader = _Reader(body)
    try:
        return reader.read()
    except InvalidRequest:
        reader.free()
        raise


class _Reader:
    def __init__(self, body: bytes | bytearray) -> None:
        self._body = body
        root = _Level(-1, False, (0, 0))  # as if the body stood in an array
        root.take_apart()
        self._levels = [root]
        self._taken = 0
        """The place of the innermost level that is taken apart; so are all around it."""

    def read(self) -> Any:
        body, levels = self._body, self._levels
        at = nodes = 0
        while at < len(body):
            token = _TOKEN.match(body, at, at + _WINDOW)
            assert token is not None  # it may be empty
            kind = token.lastindex
            start = token.end() if kind is None else token.start(kind)
            if start - levels[self._taken].at > SLICE:
                self._parse_complete(at, start)
            at = token.end()
            if kind == _FLAT:
                self._check_depth(len(levels))
                nodes += 1 + self._strings(start, at)
            elif kind == _TEXT:
                levels[-1].text = start, at
                nodes += 1
            elif kind == _OPEN:
                self._check_depth(len(levels))
                levels.append(_Level(start, body[start] == ord("{"), levels[-1].text))
                nodes += 1
            elif kind == _CLOSE:
                self._close(start)
            elif kind == _LONG:
                at = self._read_long(token.start(), start)
                nodes += 1
            if nodes > MOST_NODES:
                raise _refused("has", MOST_NODES, "arrays, objects and strings: split the request")
        return self._end()

    def free(self) -> None:
        """Free what was parsed."""
        for level in self._levels:
            free(level.value)

    def _check_depth(self, depth: int) -> None:
        if depth > MOST_DEPTH:
            raise InvalidRequest(TOO_DEEP, limit=MOST_DEPTH)

    def _strings(self, start: int, end: int) -> int:
        """How many strings there are in a flat array or object."""
        body = self._body
        if body.find(b'\\"', start, end) < 0:
            return body.count(b'"', start, end) // 2
        return len(_QUOTES.findall(body, start, end))

    def _parse_complete(self, gap: int, start: int) -> None:
        """Parse what ends before ``start``, and take apart what is too long and goes on.

        ``gap`` is the end of the last token: until ``start`` there are only commas and scalars.
        """
        levels = self._levels
        while True:
            level = levels[self._taken]
            inner = levels[self._taken + 1] if self._taken + 1 < len(levels) else None
            if inner is None:
                after, before = max(gap, level.at), start
            else:
                after, before = level.at, inner.name[0] if level.is_object else inner.opened
            comma = self._body.rfind(b",", after, before)
            if comma > level.at:
                self._parse(level, comma)
            if inner is None:
                break
            if start - level.at <= SLICE:
                return
            self._take_apart(inner)
        if start - level.at > MOST_SCALAR:
            raise _refused("has numbers or white space of", MOST_SCALAR, "bytes: shorten them")

    def _take_apart(self, inner: _Level) -> None:
        self._parse(self._levels[self._taken], inner.opened, b"0")
        inner.take_apart()
        self._taken += 1

    def _parse(self, level: _Level, end: int, instead: bytes = b"") -> None:
        """Parse what is left of a level up to ``end``, and what stands there ``instead``."""
        parsed = f'"{_ZERO}":0'.encode() if level.is_object else b"0"
        opening, closing = (b"{", b"}") if level.is_object else (b"[", b"]")
        before = parsed if level.after else b""
        run = b"".join((opening, before, self._body[level.at : end], instead, closing))
        content = loads(run, f" (in bytes {max(level.at, 0)} to {end})")
        if level.is_object:
            content.pop(_ZERO, None)
            level.value.update(content)
            if len(level.value) > MOST_NAMES:
                raise _refused("has an object of", MOST_NAMES, "members: send fewer")
        else:
            level.value += content[level.after : len(content) - bool(instead)]
        level.at, level.after = end, True

    def _close(self, start: int) -> None:
        level = self._levels.pop()
        closing = b"}" if level.is_object else b"]"
        if not self._levels or self._body[start : start + 1] != closing:
            raise _malformed(f"unexpected bracket at byte {start}")
        if level.value is not None:
            self._parse(level, start)
            self._put(level, level.value, start + 1)

    def _put(self, level: _Level, value: Any, end: int) -> None:
        """Put what was taken apart into the level around it, which goes on at ``end``."""
        self._taken -= 1
        around = self._levels[-1]
        around.add(loads(self._body[slice(*level.name)]) if around.is_object else "", value)
        around.at = end

    def _read_long(self, gap: int, start: int) -> int:
        """Read a long string in parts; returns where it ends."""
        levels, body = self._levels, self._body
        if levels[-1].is_object and not body[gap:start].rstrip().endswith(b":"):
            raise _refused("has a name of", SLICE, "bytes: shorten it")
        text = _Level(start, False, levels[-1].text)
        levels.append(text)
        while levels[self._taken] is not text:
            self._parse_complete(gap, start)
            if levels[self._taken] is not text:
                self._take_apart(levels[self._taken + 1])
        levels.pop()
        parts, at = [], start + 1
        while match := _PART.match(body, at, at + SLICE):
            end = _rest(body, match.end())
            if end == at:
                break
            part = b"".join((b'"', body[at:end], b'"'))
            parts.append(loads(part, f" (in bytes {at} to {end})"))
            at = end
        if body[at : at + 1] != b'"':
            raise _malformed(f"the string at byte {start} does not end, or not at byte {at}")
        self._put(text, "".join(parts), at + 1)
        return at + 1

    def _end(self) -> Any:
        root = self._levels[0]
        if len(self._levels) > 1:
            raise _malformed("unexpected end of data")
        self._parse(root, len(self._body))
        if len(root.value) != 1:
            raise _malformed("it is not one value")
        return root.value[0]


def _rest(body: bytes | bytearray, at: int) -> int:
    match = _REST.match(body, at)
    assert match is not None  # it may be empty
    return match.end()


TOO_DEEP = f"the body is nested more than {MOST_DEPTH} deep: flatten it"


def _refused(what: str, limit: int, unit: str) -> InvalidRequest:
    return InvalidRequest(f"the body {what} more than {limit} {unit}", limit=limit)


def _malformed(detail: str) -> InvalidRequest:
    return InvalidRequest(f"the body is not JSON: {detail}")


def loads(body: bytes | bytearray, place: str = "") -> Any:
    """Parse JSON in one call, lone surrogates included: they make only their own pair invalid.

    Args:
        place: where it stands in a body, for the error.

    Raises:
        InvalidRequest: it is not JSON, or holds NaN or Infinity.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as first:
        # Python's json writes lone surrogates, for which orjson refuses the whole body.
        if b"\\ud" not in body and b"\\uD" not in body:
            raise _malformed(f"{first}{place}") from first
    try:
        return json.loads(body, parse_constant=_refuse_constant, parse_float=_finite)
    except ValueError as error:
        raise _malformed(f"{error}{place}") from error


def dumps(value: Any) -> bytes:
    """Write JSON in one call, lone surrogates included."""
    try:
        return orjson.dumps(value)
    except TypeError:  # orjson does not write lone surrogates
        return json.dumps(value, allow_nan=False).encode()


def written(value: Any) -> bytearray:
    """The JSON of a value that may be large."""
    json_text = bytearray()
    _write(value, json_text)
    return json_text


def _write(value: Any, out: bytearray) -> None:
    if isinstance(value, str) and len(value) > SLICE:
        out += b'"'
        for at in range(0, len(value), SLICE):
            out += dumps(value[at : at + SLICE])[1:-1]
        out += b'"'
    elif isinstance(value, dict) and value:
        for place, (name, member) in enumerate(value.items()):
            out += b"," if place else b"{"
            _write(name, out)
            out += b":"
            _write(member, out)
        out += b"}"
    elif isinstance(value, list) and value:
        for at in range(0, len(value), FEW):
            out += b"," if at else b"["
            _write_entries(value[at : at + FEW], out)
        out += b"]"
    else:
        out += dumps(value)


def _write_entries(entries: list[Any], out: bytearray) -> None:
    if set(map(type, entries)) <= {int, float}:
        out += dumps(entries)[1:-1]
        return
    for place, entry in enumerate(entries):
        out += b"," if place else b""
        _write(entry, out)


def free(value: Any) -> None:
    """Empty a parsed body's lists and objects, the innermost first.

    Freed all at once, a million of them would stop every thread for a tenth of a second.
    """
    if isinstance(value, dict):
        for member in value.values():
            free(member)
        value.clear()
    elif isinstance(value, list):
        for entry in value:
            if isinstance(entry, list | dict):
                free(entry)
        while value:
            del value[-FEW:]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _finite(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise ValueError(f"{digits} is too large for a number")
    return number
