"""Bodies of any client, read without trust."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivescore.errors import InvalidRequest
from fivescore.http.body import MOST_NODES, json_response, parse_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_json_is_read_as_python_reads_it(value: object) -> None:
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        assert parse_json(text.encode()) == json.loads(text)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_goes_out_so_that_it_reads_back_the_same(value: float) -> None:
    assert json.loads(bytes(json_response([value]).body)) == [value]


@pytest.mark.parametrize("text", ['"\\ud83d"', '["a\\uDE00b", 1]', '{"\\ud800": 1}'])
def test_half_a_surrogate_pair_does_not_spoil_the_body(text: str) -> None:
    assert parse_json(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"prompt=a&response=b",
        b"{'prompt': 'a'}",
        b'{"a": 1}{"b": 2}',
        b'{"a": 1,}',
        b'"\xff"',
        b"NaN",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'["\\ud83d", NaN]',
        b'["\\ud83d", Infinity]',
        b'["\\ud83d"',
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'["\\ud83d",' + b"[" * 100_000 + b"]" * 100_000 + b"]",
        b'{"a":' * 100_000,
        b'["\\ud83d", ' + b"1" * 5000 + b"]",
    ],
    ids=lambda body: repr(body[:16]),
)
def test_what_is_not_json_is_a_malformed_request(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"^the body is not JSON: "):
        parse_json(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * MOST_NODES + b"[]]",
        b"[" + b"{}," * MOST_NODES + b"{}]",
        b"[" + b'"",' * MOST_NODES + b'""]',
        b"[" + b'"\\\\",' * MOST_NODES + b'""]',
        b"{" + b'"a": 1,' * (MOST_NODES // 2) + b'"a": 1}',
    ],
    ids=["arrays", "objects", "texts", "escapes", "members"],
)
def test_a_body_of_too_many_nodes_is_refused_before_it_is_parsed(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match=f"more than {MOST_NODES} arrays") as refused:
        parse_json(body)
    assert refused.value.facts == {"limit": MOST_NODES}


def test_what_texts_hold_does_not_count() -> None:
    code = '{"a": [1], \\"b\\": "c"}\\' * (MOST_NODES // 4)
    assert parse_json(json.dumps({"text": code}).encode()) == {"text": code}


def test_token_ids_do_not_count() -> None:
    assert len(parse_json(b"[" + b"1," * MOST_NODES + b"1]")) == MOST_NODES + 1


@pytest.mark.parametrize("end", [b"", b"\\"])
def test_quotes_without_an_end_are_read_once(end: bytes) -> None:
    with pytest.raises(InvalidRequest):  # from each quote again it would take hours
        parse_json(b'"' + b'\\":' * MOST_NODES + end)
