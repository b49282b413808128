"""``X-Priority`` is an integer within bounds, or an error that names it."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from fivescore.errors import InvalidRequest
from fivescore.http.priority import priority_of


def request(*values: str) -> Request:
    headers = [(b"x-priority", value.encode("latin-1")) for value in values]
    return Request({"type": "http", "headers": headers})


def test_without_the_header_it_is_0() -> None:
    assert priority_of(request()) == 0


@pytest.mark.parametrize("value", ["-1000", "-1", "0", "7", "1000"])
def test_an_integer_within_the_bounds_is_taken(value: str) -> None:
    assert priority_of(request(value)) == int(value)


@pytest.mark.parametrize("value", ["", "high", "1.5", "1001", "-1001", "9" * 5000, "²", "1 ", "+1"])
def test_anything_else_is_refused_by_name(value: str) -> None:
    with pytest.raises(InvalidRequest, match="X-Priority: must be an integer") as caught:
        priority_of(request(value))
    assert caught.value.errors[0]["field"] == "X-Priority"
