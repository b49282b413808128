"""Bodies of any client, read without trust."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivescore.errors import InvalidRequest
from fivescore.http.body import json_response, parse_json
from fivescore.http.slices import MOST_DEPTH

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
        b'["\\ud83d", ' + b"1" * 5000 + b"]",
    ],
    ids=lambda body: repr(body[:16]),
)
def test_what_is_not_json_is_a_malformed_request(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"^the body is not JSON: "):
        parse_json(body)


NEST = {"lists": ("[", "]"), "objects": ('{"a":', "}"), "both": ('[{"a":', "}]")}


@pytest.mark.parametrize("kind", NEST)
@pytest.mark.parametrize("text", ["[", "]}", '\\"[{', "\\", "\ud83d"])
def test_a_body_is_as_deep_as_the_limit_whatever_its_texts_hold(kind: str, text: str) -> None:
    opening, closing = NEST[kind]
    levels = MOST_DEPTH // (2 if kind == "both" else 1)
    many = json.dumps([text * 200, 1])[1:-1]
    body = opening * (levels - 1) + f"[{many}]" + closing * (levels - 1)
    assert parse_json(body.encode()) == json.loads(body)
    with pytest.raises(InvalidRequest, match=f"nested more than {MOST_DEPTH} deep") as refused:
        parse_json(f"[{body}]".encode() if kind != "both" else f"[[{body}]]".encode())
    assert refused.value.facts == {"limit": MOST_DEPTH}


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'["\\ud83d",', b'"[', b"[]}"])
@pytest.mark.parametrize("closing", [b"", b"]"])
def test_what_never_closes_is_refused(opening: bytes, closing: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_json(opening * 100_000 + closing * 100_000)
