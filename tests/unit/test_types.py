"""Pairs: the forms that are taken, and what is said of the others."""

from __future__ import annotations

from typing import Any

import pytest

from fivescore.errors import InvalidPair
from fivescore.types import Pair, parse_pair


def refusal(value: object) -> str:
    error = parse_pair(value)
    assert isinstance(error, InvalidPair)
    assert "\n" not in error.detail
    assert "Value error" not in error.detail
    return error.detail


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": "Q", "response": "A"},
        {"prompt": "", "response": ""},
        {"prompt": [{"role": "user", "content": "Q"}], "response": "A"},
        {
            "prompt": [
                {"role": role, "content": "x"} for role in ("system", "user", "assistant", "user")
            ],
            "response": "A",
        },
        {"token_ids": [0, 7, 2**31 - 1]},
        {"text": "<s>Q A"},
        {"prompt": None, "response": None, "token_ids": [1]},
    ],
)
def test_a_pair_has_one_of_three_forms_and_null_is_absent(value: dict[str, Any]) -> None:
    pair = parse_pair(value)
    assert isinstance(pair, Pair)
    given = {name: one for name, one in value.items() if one is not None}
    assert pair.model_dump(exclude_none=True) == given


ONE_FORM = "give prompt and response, or text alone, or token_ids alone"


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"prompt": "Q"},
        {"response": "A"},
        {"prompt": "Q", "token_ids": [1]},
        {"response": "A", "token_ids": [1]},
        {"prompt": "Q", "response": "A", "token_ids": [1]},
        {"prompt": None, "response": "A"},
        {"text": "T", "prompt": "Q"},
        {"text": "T", "response": "A"},
        {"text": "T", "prompt": "Q", "response": "A"},
        {"text": "T", "token_ids": [1]},
        {"text": None},
    ],
)
def test_any_other_combination_says_which_there_are(value: dict[str, Any]) -> None:
    assert ONE_FORM in refusal(value)


@pytest.mark.parametrize("roles", [["system"], ["user", "assistant"], ["user", "system"]])
def test_the_last_message_is_the_users(roles: list[str]) -> None:
    turns = [{"role": role, "content": "x"} for role in roles]
    assert "the last message of prompt must be the user's" in refusal(
        {"prompt": turns, "response": "A"}
    )


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"prompt": 1, "response": "A"}, "prompt"),
        ({"prompt": {"role": "user", "content": "x"}, "response": "A"}, "prompt"),
        ({"prompt": [], "response": "A"}, "prompt"),
        ({"prompt": ["x"], "response": "A"}, "prompt"),
        ({"prompt": [{"role": "user"}], "response": "A"}, "content"),
        ({"prompt": [{"role": "user", "content": None}], "response": "A"}, "content"),
        ({"prompt": [{"role": "human", "content": "x"}], "response": "A"}, "role"),
        ({"prompt": [{"role": "user", "content": "x", "name": "y"}], "response": "A"}, "name"),
        ({"prompt": "Q", "response": 1}, "response"),
        ({"prompt": "Q", "response": ["A"]}, "response"),
        ({"prompt": "Q", "response": "A", "answer": "A"}, "answer"),
        ({"text": ""}, "text: "),
        ({"text": 1}, "text: "),
        ({"text": ["T"]}, "text: "),
        ({"text": "cut \ud83d"}, "text: character 4 is half of a surrogate"),
        ({"token_ids": []}, "token_ids"),
        ({"token_ids": [-1]}, "token_ids"),
        ({"token_ids": [2**31]}, "token_ids"),
        ({"token_ids": [1.0]}, "token_ids"),
        ({"token_ids": ["1"]}, "token_ids"),
        ({"token_ids": [True]}, "token_ids"),
        ({"token_ids": "123"}, "token_ids"),
        ("text", "Pair"),
        (None, "Pair"),
        ([], "Pair"),
    ],
)
def test_a_fault_names_its_field(value: object, field: str) -> None:
    assert field in refusal(value)


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        ({"prompt": "a", "response": "b", "x\r\ny é": 1}, r"x\r\ny é: unknown field"),
        ({"token_ids": [-1] * 1000}, "token_ids.0: Input should be greater than or equal to 0"),
        ({str(number): 0 for number in range(1000)}, "1000 fields are unknown or wrong"),
    ],
)
def test_a_thousand_faults_or_odd_names_get_one_short_line(value: object, detail: str) -> None:
    assert refusal(value) == detail


def test_of_several_faults_the_first_are_named() -> None:
    assert "and 95 more" in refusal({str(number): 0 for number in range(100)})
