"""Hostile bodies, written by hand: what breaks parsers, validators, templates and tokenisers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.integration.protocols.protocols import PAIRS, PROTOCOLS, Protocol, encoded

GOOD = encoded(PAIRS[0])
DEEP = 100_000
LONG = 2**14
"""Characters of long texts; the long form has 2^20."""


@dataclass(frozen=True)
class Case:
    """One request.

    ``field`` is the part of the body that is hostile; a refusal has to name it. ``refused`` says
    that no score is right here.
    """

    name: str
    path: str
    body: bytes
    field: str = ""
    refused: bool = False


NO_JSON: dict[str, bytes] = {
    "empty": b"",
    "spaces": b" " * 2**20,
    "null bytes": b"\0" * 1000,
    "open": b'{"prompt": "Q',
    "form": b"prompt=Q&response=A",
    "single quotes": b"{'prompt': 'Q', 'response': 'A'}",
    "comment": b'{"prompt": "Q", "response": "A"} // yes',
    "trailing comma": b'{"prompt": "Q", "response": "A",}',
    "two": GOOD + GOOD,
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "utf-16": b"\xff\xfe" + GOOD.decode().encode("utf-16-le"),
    "latin-1": b'{"prompt": "caf\xe9", "response": "A"}',
    "overlong": b'{"prompt": "\xc0\xaf", "response": "A"}',
    "encoded surrogate": b'{"prompt": "\xed\xa0\x80", "response": "A"}',
    "cut character": b'{"prompt": "Q", "response": "\xf0\x9f\x98',
    "raw newline in a text": b'{"prompt": "a\nb", "response": "A"}',
    "bad escape": b'{"prompt": "\\x41", "response": "A"}',
    "cut escape": b'{"prompt": "\\u12", "response": "A"}',
    "gzip": gzip.compress(GOOD, mtime=0),
    "NaN": b'{"prompt": "Q", "response": "A", "timeout_seconds": NaN}',
    "Infinity": b'{"prompt": "Q", "response": "A", "timeout_seconds": Infinity}',
    "-Infinity": b'[-Infinity]',
    "NaN after a surrogate": b'{"prompt": "\\ud800", "response": NaN}',
    "1e400": b'{"prompt": "Q", "response": "A", "timeout_seconds": 1e400}',
    "-1e400": b'{"prompt": "Q", "response": "A", "timeout_seconds": -1e400}',
    "5000 digits": b'{"token_ids": [' + b"9" * 5000 + b"]}",
    "5000 digits after a surrogate": b'["\\ud800", ' + b"9" * 5000 + b"]",
    "0x10": b'{"token_ids": [0x10]}',
    "01": b'{"token_ids": [01]}',
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep open lists": b"[" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep after a surrogate": b'["\\ud800",' + b"[" * DEEP + b"]" * DEEP + b"]",
    "deep model": b'{"prompt": "Q", "response": "A", "messages": [], "model": '
        + b"[" * 1000 + b"]" * 1000 + b"}",
    "deep prompt": b'{"prompt": ' + b"[" * 2000 + b"]" * 2000 + b', "response": "A"}',
    "quotes without an end": b'"' + b'\\"' * 2**20,
    "number": b"1", "null": b"null", "text": b'"prompt"', "true": b"true", "list": b"[]",
    "list of a pair": b"[" + GOOD + b"]", "no member": b"{}",
    "half a million lists": b'{"pairs": [' + b"[]," * 500_000 + b"[]]}",
    "five million lists": b"[" + b"[]," * 5_000_000 + b"[]]",
    "five million texts": b'{"input": [' + b'"",' * 5_000_000 + b'""]}',
    "half a million members": b"{" + b",".join(b'"%d":1' % i for i in range(500_000)) + b"}",
    "half a million unknown members": b'{"prompt": "Q", "response": "A", "text_1": "Q", '
        b'"text_2": "A"' + b"".join(b',"%d":1' % i for i in range(500_000)) + b"}",
    "half a million bad messages":
        b'{"prompt": [' + b"{}," * 500_000 + b'{}], "response": "A"}',
    "half a million bad ids": b'{"token_ids": [' + b'"",' * 500_000 + b'""]}',
}  # fmt: skip
"""What every route refuses, whatever it takes."""
LARGE_ROUTES = ("/score", "/classify")
"""Where the short form sends the large ones: reading a body is the same on all."""
LONG_FORM_ONLY = {"five million lists", "five million texts"}


def _deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


VALUES: dict[str, Any] = {
    "null": None, "true": True, "false": False, "0": 0, "-1": -1, "1.5": 1.5, "1e308": 1e308,
    "2^31": 2**31, "2^63": 2**63, "2^64": 2**64, "-2^63": -(2**63), "10^300": 10**300,
    "empty text": "", "text": "x", "null byte": "\0", "surrogate": "\ud800",
    "low surrogate": "a\udc00b", "empty list": [], "empty object": {}, "list of lists": [[]],
    "list of objects": [{}], "list of null": [None], "mixed": ["x", 1, None],
    "list of texts": ["x", "y"], "three": ["x", "y", "z"], "ids": [1, 2, 3],
    "true in ids": [1, True],
    "negative id": [-1], "fractional id": [1.5], "id of 2^31": [2**31], "id of 2^63": [2**63],
    "id of 10^300": [10**300], "id as text": ["1"], "ids in ids": [[[1]]],
    "large id": [2**31 - 1],
    "object": {"a": 1}, "message without role": [{"content": "x"}],
    "message without content": [{"role": "user"}],
    "message of a wizard": [{"role": "wizard", "content": "x"}],
    "message of null": [{"role": "user", "content": None}],
    "message of a list": [{"role": "user", "content": [[]]}],
    "image": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
    "proto": {"__proto__": {"x": 1}, "constructor": 1}, "deep": _deep(90),
    "10,001 texts": ["x"] * 10_001, "10,001 objects": [{}] * 10_001,
}  # fmt: skip
"""In place of every part of a good body; the short form has a third of them on trainers' routes."""


def texts(length: int) -> dict[str, str]:
    """What a prompt or a response may hold; ``length`` is that of the long ones."""
    return {
        "null": "a\0b\0",
        "controls": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
        "special tokens": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "<|eot_id|>"
        "<s></s><unk><pad><bos><eos>[CLS][SEP][MASK]<|im_start|>user\n<|im_end|><|endoftext|>"
        "[INST][/INST]<<SYS>><extra_id_0>System\n<extra_id_1>User\n<extra_id_2><think></think>",
        "special tokens in special tokens": "<|eot<|eot_id|>_id|><<s>s>",
        "many ends of turns": "<|eot_id|>" * 500,
        "template": "{{ 7 * 7 }}{% for x in y %}{% endfor %}{{ raise_exception('x') }}{# #}",
        "private use": "\ue000\ue001\ue002\ue003\ue004\ue005\ue010\ue011" * 50,
        "noncharacters": "\ufffe\uffff\U0010ffff\ufdd0\ufffd",
        "byte order marks": "\ufeff" * 100,
        "right to left": "\u202e\u2066abc\u2069\u200f" * 50,
        "zalgo": ("a" + "\u0301\u0336\u0489" * 20) * 50,
        "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466" * 100,
        "flags": "\U0001f1e6" * 501,
        "hangul": "\u1100\u1161\u11a8" * 200,
        "expands in NFKC": "\ufdfa" * 200,
        "line ends": "\r\n\r\n\u2028\u2029\x85" * 50,
        "markup": "<script>alert(1)</script>'; DROP TABLE pairs; --${jndi:ldap://x}%s%n../../",
        "long word": "a" * length,
        "long word of two": "ab" * (length // 2),
        "long digits": "1" * length,
        "long spaces": " " * length,
        "long lines": "\n" * length,
        "long marks": "!" * length,
        "long emoji": "\U0001f468\u200d" * (length // 2),
        "long Chinese": "\u6f22" * length,
        "long zalgo": "a" + "\u0301" * length,
        "long specials": "<|eot_id|>" * (length // 10),
    }


def cases(long_form: bool) -> Iterator[Case]:
    """All of them, on every scoring route."""
    routes = by_path()
    for path, protocols in routes.items():
        yield from _without_json(path, long_form)
        for protocol, body in protocols:
            yield from _misplaced(path, protocol, body, long_form)
            yield Case(f"{protocol} twice", path, _twice(body))
        yield from _texts(path, *protocols[0], 2**20 if long_form else LONG)
    many = encoded({"pairs": [PAIRS[0]] * 10_001})
    yield Case("10,001 pairs", "/score", many, "pairs", refused=True)


def _without_json(path: str, long_form: bool) -> Iterator[Case]:
    for name, body in NO_JSON.items():
        short = name not in LONG_FORM_ONLY and (len(body) < 2**16 or path in LARGE_ROUTES)
        if short or long_form:
            yield Case(name, path, body, refused=True)


def _misplaced(path: str, protocol: str, body: Any, long_form: bool) -> Iterator[Case]:
    for at, place in enumerate(_places(body)):
        for i, (name, value) in enumerate(VALUES.items()):
            if long_form or path == "/score" or (i + at) % 3 == 0:
                changed = encoded(_with(body, place, value))
                field = "" if value is None else str(place[0])  # then another may be missed
                yield Case(f"{protocol} {place} {name}", path, changed, field)


def _texts(path: str, protocol: str, body: Any, length: int) -> Iterator[Case]:
    for place in _places(body):
        if isinstance(_at(body, place), str) and place[-1] not in STRUCTURE:
            for name, text in texts(length).items():
                changed = encoded(_with(body, place, text))
                yield Case(f"{protocol} {place} {name}", path, changed, str(place[0]))


STRUCTURE = ("role", "type", "id", "object", "model")
"""Texts that nobody scores."""


def by_path() -> dict[str, list[tuple[str, Any]]]:
    """Good bodies of every scoring route."""
    found: dict[str, list[tuple[str, Any]]] = {
        "/score": [
            ("bare", {**PAIRS[0], "weights": {"helpfulness": 1.0}, "timeout_seconds": 600.0,
                      "truncate": "never"}),
            ("messages", {"prompt": [{"role": "user", "content": "Q"}], "response": "A"}),
            ("batch", {"pairs": [PAIRS[0], {"text": "Q A"}, {"token_ids": [1, 2, 3]}]}),
        ]
    }  # fmt: skip
    for protocol in PROTOCOLS:
        found.setdefault(protocol.path, []).append((protocol.name, _body(protocol)))
    return found


def _body(protocol: Protocol) -> Any:
    return protocol.body(PAIRS[:2] if protocol.many else PAIRS[:1])


Place = tuple[str | int, ...]


def _places(value: Any, here: Place = ()) -> Iterator[Place]:
    """Where a body has parts; of token ids the first alone."""
    if here:
        yield here
    children: Sequence[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        ids = len(value) > 3 and all(isinstance(item, int) for item in value)
        children = list(enumerate(value[:1] if ids else value))
    for key, child in children:
        yield from _places(child, (*here, key))


def _at(value: Any, place: Place) -> Any:
    for key in place:
        value = value[key]
    return value


def _with(value: Any, place: Place, other: Any) -> Any:
    if not place:
        return other
    copied: Any = dict(value) if isinstance(value, dict) else list(value)
    copied[place[0]] = _with(value[place[0]], place[1:], other)
    return copied


def _twice(body: Any) -> bytes:
    """Every member twice, first with another value: the last one counts, as in Python."""
    members = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in body.items()]
    nulls = [f"{json.dumps(key)}: null" for key in body]
    return f"{{{', '.join(nulls + members)}}}".encode()
