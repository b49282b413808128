"""Parsing of ``POST /score``'s body, apart from HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from fivescore.errors import InvalidPair, InvalidRequest
from fivescore.http.routes import Asked, parse
from fivescore.scoring.scorer import Options
from fivescore.types import Pair, parse_pair

PAIR = {"prompt": "Q", "response": "A"}


def pair(**fields: Any) -> Pair | InvalidPair:
    return parse_pair(fields)


def test_a_batch_is_its_pairs_and_the_default_options() -> None:
    asked = parse({"pairs": [PAIR, 1]})
    assert (asked.pairs[0], asked.options, asked.bare) == (pair(**PAIR), Options(), False)
    assert isinstance(asked.pairs[1], InvalidPair)


def test_a_bare_pair_is_one_pair() -> None:
    assert parse(PAIR) == Asked([pair(**PAIR)], Options(), True)
    assert parse({"token_ids": [1]}) == Asked([pair(token_ids=[1])], Options(), True)


def test_options_stand_beside_the_pairs_in_both_forms() -> None:
    options = {"weights": {"a": 1}, "truncate": "prompt_start", "timeout_seconds": 2}
    expected = Options({"a": 1.0}, "prompt_start", 2.0)
    assert parse({"pairs": [], **options}) == Asked([], expected, False)
    assert parse({**PAIR, **options}) == Asked([pair(**PAIR)], expected, True)


def test_a_principle_is_a_bare_pairs_own_and_a_batchs_option() -> None:
    judged = {**PAIR, "principle": "honesty"}
    assert parse(judged) == Asked([pair(**judged)], Options(), True)
    expected = Options(principle="honesty")
    batch = parse({"pairs": [PAIR], "principle": "honesty"})
    assert batch == Asked([pair(**PAIR)], expected, False)


def test_the_body_is_left_as_it_was() -> None:
    body = {**PAIR, "timeout_seconds": 1}
    parse(body)
    assert body == {**PAIR, "timeout_seconds": 1}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        *((body, "JSON object") for body in ([], "text", 1, None, True, [PAIR])),
        *(({"pairs": pairs}, "pairs: must be a list") for pairs in (PAIR, "text", 1, None)),
        ({}, "pairs: "),
        ({"weights": {"a": 1}}, "pairs: "),
    ],
)
def test_a_body_without_a_list_of_pairs_or_a_pair_is_malformed(body: object, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        parse(body)


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"truncate": "x", "timeout_seconds": 0, "n": 1}, "truncate timeout_seconds n"),
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
def test_every_faulty_option_is_named(options: dict[str, Any], fields: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse({"pairs": [PAIR], **options})
    assert {error["field"] for error in caught.value.errors} == set(fields.split())
    assert len(caught.value.errors) == len(fields.split())
    assert all(field in caught.value.detail for field in fields.split())
