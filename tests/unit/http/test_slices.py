"""Large bodies, read and written in slices."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivescore.errors import InvalidRequest
from fivescore.http import slices
from fivescore.http.slices import MOST_DEPTH, MOST_NAMES, MOST_SCALAR, SLICE

MOST_NODES = 2**16

TEXT = st.text() | st.sampled_from(
    ("\U0001f9d1" * 9, "\u6f22" * 9, "\ud83d" * 5, "\ude00\ud83d\ude00" * 5, "\\" * 9, '"' * 9,
     "[{" * 9, '",}]' * 5, "\x00\x7f" * 5, "u00e9\\u00e9" * 3)
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _short_slices() -> Any:
    """Slices of a few bytes, so that every part of a small body is long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "SLICE", 8)
        patch.setattr(slices, "_WINDOW", 16)
        patch.setattr(slices, "FEW", 2)
        yield


def read(body: bytes) -> Any:
    """The value of a body; None where a name in it is longer than a slice may be here."""
    try:
        return slices.read(body)
    except InvalidRequest as error:
        if "has a name of" in error.detail:
            return None
        raise


@given(JSON, st.booleans(), st.sampled_from((None, 1)))
def test_what_is_read_in_slices_is_what_python_reads(
    value: object, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    body = text.encode(errors="surrogatepass")
    try:
        body.decode()
    except UnicodeDecodeError:
        with pytest.raises(InvalidRequest):
            slices.read(body)
    else:
        assert read(body) in (None, json.loads(text))


@given(JSON, st.data())
def test_what_python_does_not_read_is_refused(value: object, data: st.DataObject) -> None:
    body = json.dumps(value).encode()
    at = data.draw(st.integers(0, len(body)))
    cut = data.draw(st.integers(0, 2))
    put = data.draw(st.sampled_from((b"", b",", b":", b"[", b"]", b"}", b'"', b"0", b"\\", b"{}")))
    changed = body[:at] + put + body[at + cut :]
    try:
        expected = json.loads(changed, parse_constant=lambda name: 1 / 0)
    except (ValueError, ZeroDivisionError):
        with pytest.raises(InvalidRequest):
            slices.read(changed)
    else:
        if "\ufeff" not in changed.decode():
            assert read(changed) in (None, expected)


@given(JSON)
def test_what_is_written_in_slices_reads_back_the_same(value: object) -> None:
    assert json.loads(bytes(slices.written(value))) == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * MOST_NODES + b"[]]",
        b"[" + b"{}," * MOST_NODES + b"{}]",
        b"[" + b'"",' * MOST_NODES + b'""]',
        b"[" + b'"\\\\",' * MOST_NODES + b'""]',
        b"[" + b'{"a":1},' * (MOST_NODES // 2) + b"1]",
    ],
    ids=["arrays", "objects", "texts", "escapes", "members"],
)
@pytest.mark.usefixtures("long_slices")
def test_a_body_of_too_many_nodes_is_refused_while_it_is_read(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match=f"more than {MOST_NODES} arrays") as refused:
        slices.read(body)
    assert refused.value.facts == {"limit": MOST_NODES}


@pytest.fixture
def long_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices as they are, with fewer nodes."""
    monkeypatch.setattr(slices, "MOST_NODES", MOST_NODES)
    monkeypatch.setattr(slices, "SLICE", SLICE)
    monkeypatch.setattr(slices, "_WINDOW", 2 * SLICE)


@pytest.mark.usefixtures("long_slices")
def test_what_texts_hold_does_not_count() -> None:
    code = '{"a": [1], \\"b\\": "c"}\\' * MOST_NODES
    assert slices.read(json.dumps({"text": code}).encode()) == {"text": code}
    codes = [code[:1000]] * (MOST_NODES // 8)
    assert slices.read(json.dumps({"texts": codes}).encode()) == {"texts": codes}


@pytest.mark.usefixtures("long_slices")
def test_token_ids_do_not_count() -> None:
    assert len(slices.read(b"[" + b"1," * MOST_NODES + b"1]")) == MOST_NODES + 1


@pytest.mark.usefixtures("long_slices")
@pytest.mark.parametrize("end", [b"", b"\\"])
def test_quotes_without_an_end_are_read_once(end: bytes) -> None:
    with pytest.raises(InvalidRequest):  # from each quote again it would take hours
        slices.read(b'"' + b'\\":' * MOST_NODES + end)


@pytest.mark.usefixtures("long_slices")
@pytest.mark.parametrize(
    ("body", "limit"),
    [
        (json.dumps({f"a{i}": 0 for i in range(MOST_NAMES + 1)}), MOST_NAMES),
        (json.dumps([{"a" * (2 * SLICE): 0}]), SLICE),
        (f"[{'1' * (MOST_SCALAR + SLICE)}, 1]", MOST_SCALAR),
        (f"[1, {' ' * (MOST_SCALAR + SLICE)} 1]", MOST_SCALAR),
        ("[" * (MOST_DEPTH + 1) + "1," * SLICE + "1" + "]" * (MOST_DEPTH + 1), MOST_DEPTH),
    ],
    ids=["members", "name", "number", "space", "depth"],
)
def test_what_no_slice_bounds_has_a_limit(body: str, limit: int) -> None:
    with pytest.raises(InvalidRequest, match=str(limit)) as refused:
        slices.read(body.encode())
    assert refused.value.facts == {"limit": limit}


def test_no_call_parses_more_than_some_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = 0
    loads = slices.loads

    def spied(body: bytes, place: str = "") -> Any:
        nonlocal longest
        longest = max(longest, len(body))
        return loads(body, place)

    monkeypatch.setattr(slices, "loads", spied)
    body = {
        "ids": list(range(3000)),
        "texts": ["a b" * i for i in range(60)],
        "deep": [[[{"a": [[1, 2, 3] * 99] * 9}] * 3]] * 3,
        "long": 'a"\U0001f9d1' * 999,
        "objects": [{"a": 1, "b": {"c": [2]}}] * 99,
        "names": {f"n{i}": i for i in range(999)},
    }
    assert slices.read(json.dumps(body, ensure_ascii=False).encode()) == body
    assert longest < 12 * slices.SLICE
