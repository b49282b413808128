"""The key of a request, out of its header or its address."""

from __future__ import annotations

import base64
from collections.abc import MutableMapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fivescore.errors import ConfigurationError
from fivescore.http.auth import MOST_OFFERED, OPEN, Keys, open_routes
from fivescore.http.keyring import Keyring

KEYS = ("first", "se:co+nd/=", "x" * 512)
KEY = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=","), min_size=1
)
NOISE = st.binary(max_size=40)


async def ask(
    keys: tuple[str, ...],
    headers: list[tuple[bytes, bytes]],
    query: bytes = b"",
    path: str = "/x",
    opened: frozenset[str] = OPEN,
) -> int:
    """The status that a request gets; 200 is the app behind the keys."""
    sent: list[MutableMapping[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError("the body was asked for")

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": headers, "query_string": query,
             "method": "POST"}  # fmt: skip
    await Keys(app, Keyring(keys), opened)(scope, receive, send)
    status: int = sent[0]["status"]
    return status


def authorization(kind: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), (b"authorization", kind + b" " + value)]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("kind", [b"Bearer", b"bearer", b"BEARER"])
async def test_every_key_is_taken_as_a_bearers(kind: bytes, key: str) -> None:
    assert await ask(KEYS, authorization(kind, key.encode())) == 200
    assert await ask(KEYS, authorization(kind, b"  " + key.encode() + b" ")) == 200


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("user", ["", "x", "a user", "ü"])
async def test_every_key_is_taken_as_a_basic_password_of_any_user(user: str, key: str) -> None:
    value = base64.b64encode(f"{user}:{key}".encode())
    assert await ask(KEYS, authorization(b"Basic", value)) == 200


@pytest.mark.parametrize(
    ("key", "query"),
    [
        *(
            ("first", query)
            for query in (b"api_key=first", b"a=1&api_key=first", b"api_key=%66irst")
        ),
        *(("a+b/c=", query) for query in (b"api_key=a+b/c=", b"api_key=a%2Bb%2Fc%3D")),
    ],
)
async def test_a_key_is_taken_from_the_address_and_its_plus(key: str, query: bytes) -> None:
    assert await ask((key,), [], query) == 200


async def test_one_good_key_among_bad_ones_is_enough() -> None:
    headers = [*authorization(b"Bearer", b"bad"), *authorization(b"Bearer", b"first")]
    assert await ask(KEYS, headers) == 200
    assert await ask(KEYS, authorization(b"Bearer", b"bad"), b"api_key=first") == 200


@given(key=KEY, offered=KEY)
@example(key="a", offered="aa")
async def test_no_other_key_is_taken(key: str, offered: str) -> None:
    expected = 200 if key == offered else 401
    assert await ask((key,), authorization(b"Bearer", offered.encode())) == expected
    encoded = base64.b64encode(b"u:" + offered.encode())
    assert await ask((key,), authorization(b"Basic", encoded)) == expected


@given(noise=NOISE)
@example(noise=b"")
@example(noise=b"Basic " + base64.b64encode(b"\xff"))
async def test_noise_is_refused_and_never_an_error(noise: bytes) -> None:
    assert await ask(KEYS, [(b"authorization", noise)], noise) == 401
    assert await ask(KEYS, authorization(b"Basic", noise)) == 401
    assert await ask(KEYS, authorization(b"Bearer", noise)) == 401
    assert await ask(KEYS, [], b"api_key=" + noise.replace(b"&", b"")) == 401


async def test_of_very_many_keys_in_a_request_only_the_first_are_looked_at() -> None:
    bad = [(b"authorization", b"Bearer bad")] * (MOST_OFFERED - 1)
    good = (b"authorization", b"Bearer first")
    assert await ask(KEYS, [*bad, good]) == 200
    assert await ask(KEYS, [*bad, bad[0], good]) == 401
    assert await ask(KEYS, [], b"api_key=bad&" * MOST_OFFERED + b"api_key=first") == 401


@pytest.mark.parametrize("path", ["/metrics", "/health"])
async def test_a_route_that_is_open_by_name_needs_no_key(path: str) -> None:
    opened = open_routes(["/metrics"], {"/metrics", "/score", *OPEN})
    assert await ask(KEYS, [], path=path, opened=opened) == 200
    for other in ("/score", "/metrics/", "/metrics/x", "//metrics", "/Metrics", "/metrics%00"):
        assert await ask(KEYS, [], path=other, opened=opened) == 401


@pytest.mark.parametrize("named", ["/metrcs", "metrics", "", "/metrics/", "/METRICS", "/metrics,"])
def test_a_route_that_is_none_cannot_be_opened_and_those_that_are_are_told(named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_routes(["/metrics", named], {"/metrics", "/score", "/health"})
    assert caught.value.detail == (
        f"--open-routes: there is no {named!r}; there are /metrics, /score"
    )
