"""Parsing of ``POST /score``'s body, apart from HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from fivescore.errors import InvalidPair, InvalidRequest
from fivescore.http.routes import parse
from fivescore.scoring.scorer import Options
from fivescore.types import Pair, parse_pair

PAIR = {"prompt": "Q", "response": "A"}


def test_a_batch_is_its_pairs_and_the_default_options() -> None:
    assert parse({"pairs": [PAIR, 1]}) == ([PAIR, 1], Options(), False)


def test_a_bare_pair_is_one_pair() -> None:
    assert parse(PAIR) == ([PAIR], Options(), True)
    assert parse({"token_ids": [1]}) == ([{"token_ids": [1]}], Options(), True)


def test_options_stand_beside_the_pairs_in_both_forms() -> None:
    options = {"weights": {"a": 1}, "truncate": "prompt_start", "timeout_seconds": 2}
    expected = Options({"a": 1.0}, "prompt_start", 2.0)
    assert parse({"pairs": [], **options}) == ([], expected, False)
    assert parse({**PAIR, **options}) == ([PAIR], expected, True)


def test_the_body_is_left_as_it_was() -> None:
    body = {**PAIR, "timeout_seconds": 1}
    parse(body)
    assert body == {**PAIR, "timeout_seconds": 1}


@pytest.mark.parametrize("body", [[], "text", 1, None, True, [PAIR]])
def test_a_body_that_is_no_object_is_malformed(body: object) -> None:
    with pytest.raises(InvalidRequest, match="JSON object"):
        parse(body)


@pytest.mark.parametrize("pairs", [PAIR, "text", 1, None])
def test_pairs_must_be_a_list(pairs: object) -> None:
    with pytest.raises(InvalidRequest, match="pairs: must be a list"):
        parse({"pairs": pairs})


@pytest.mark.parametrize("body", [{}, {"weights": {"a": 1}}])
def test_a_body_without_a_pair_says_how_to_give_one(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="pairs: "):
        parse(body)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"wieghts": {}}, "wieghts"),
        ({"weights": [1]}, "weights"),
        ({"weights": {"a": "x"}}, "weights.a"),
        ({"weights": {"a": float("inf")}}, "weights.a"),
        ({"truncate": "middle"}, "truncate"),
        ({"truncate": None}, "truncate"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": -1}, "timeout_seconds"),
        ({"timeout_seconds": "soon"}, "timeout_seconds"),
        ({"timeout_seconds": float("inf")}, "timeout_seconds"),
        ({"prompt": "Q"}, "prompt"),  # bare fields beside pairs: which is meant?
    ],
)
def test_a_faulty_option_is_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse({"pairs": [PAIR], **options})
    assert [error["field"] for error in caught.value.errors] == [field]
    assert field in caught.value.detail


def test_every_faulty_option_is_listed() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse({"pairs": [PAIR], "truncate": "x", "timeout_seconds": 0, "n": 1})
    assert {error["field"] for error in caught.value.errors} == {
        "truncate", "timeout_seconds", "n",
    }  # fmt: skip


def test_a_pair_is_parsed() -> None:
    assert parse_pair(PAIR) == Pair(prompt="Q", response="A")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"prompt": "Q"}, "give prompt and response"),
        ({"prompt": "Q", "response": 1}, "response: "),
        ({**PAIR, "answer": 1}, "answer: unknown field"),
        ({"prompt": [{"role": "user", "content": 1}], "response": "A"}, "prompt.0.content: "),
        ("text", "Pair"),
        (None, "Pair"),
    ],
)
def test_a_faulty_pair_is_its_error_in_one_line_that_names_the_field(
    value: object, told: str
) -> None:
    error = parse_pair(value)
    assert isinstance(error, InvalidPair)
    assert told in error.detail
    assert "\n" not in error.detail
    assert "Value error" not in error.detail


def test_a_pair_with_a_thousand_faults_gets_a_short_answer() -> None:
    error = parse_pair({"token_ids": [-1] * 1000})
    assert isinstance(error, InvalidPair)
    assert error.detail == "token_ids.0: Input should be greater than or equal to 0"
    several = parse_pair({str(number): 0 for number in range(100)})
    assert isinstance(several, InvalidPair)
    assert "and 95 more" in several.detail
    many = parse_pair({str(number): 0 for number in range(1000)})
    assert isinstance(many, InvalidPair)
    assert many.detail == "1000 fields are unknown or wrong"
    assert len(error.detail) < 1000
