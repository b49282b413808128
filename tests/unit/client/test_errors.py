"""The server's errors, made again by the client; and everything that travels between processes."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from fivescore import errors
from fivescore.client.errors import BadAnswer, OtherInput, Unreachable, at_pair, rebuilt
from fivescore.errors import FivescoreError, InvalidRequest, RequestError, ServiceUnavailable
from fivescore.http.problems import item
from tests.unit.test_errors import LEAVES


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_every_error_of_the_server_is_made_again(kind: type[FivescoreError]) -> None:
    original = kind("the detail", limit=3, share=0.5, request_id="r")
    made = rebuilt(json.loads(json.dumps(item(original))), 4, FivescoreError)
    assert type(made) is kind
    assert (str(made), made.detail, made.code) == ("the detail", "the detail", kind.code)
    assert made.facts == original.facts
    if isinstance(made, ServiceUnavailable):
        assert made.retry_after == 4


def test_the_faults_of_a_request_are_kept() -> None:
    faults = [{"field": "weights", "detail": "no"}]
    made = rebuilt({"code": "invalid_request", "detail": "x", "errors": faults}, 0, RequestError)
    assert isinstance(made, InvalidRequest)
    assert made.errors == faults
    assert made.facts == {}


def test_a_code_of_a_later_server_is_kept() -> None:
    made = rebuilt({"code": "too_rude", "detail": "x", "score": 2}, 0, RequestError)
    assert type(made) is RequestError
    assert (made.code, made.facts) == ("too_rude", {"score": 2})
    assert RequestError("y").code == "request_error"


@pytest.mark.parametrize("kind", [*LEAVES, Unreachable, BadAnswer, OtherInput])
def test_every_error_survives_pickling_and_copying(kind: type[FivescoreError]) -> None:
    error = kind("the detail", limit=3)
    if isinstance(error, InvalidRequest):
        error.errors = [{"field": "weights"}]
    if isinstance(error, ServiceUnavailable):
        error.retry_after = 9
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert (str(again), vars(again)) == (str(error), vars(error))


def test_the_error_of_a_pair_tells_its_place_and_survives_pickling() -> None:
    error = errors.TooLong("9 tokens", limit=8)
    told = at_pair(error, 3, 2, 10)
    again = pickle.loads(pickle.dumps(told))
    assert str(again) == again.detail == told.detail
    assert again.detail.startswith("pair 3: 9 tokens; 2 of the 10 ")
    assert again.facts == {"limit": 8, "index": 3, "failed": 2}
    assert (str(error), error.facts) == ("9 tokens", {"limit": 8})
