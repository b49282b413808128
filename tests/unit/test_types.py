"""Pairs: the forms that are taken, and what is said of the others."""

from __future__ import annotations

from typing import Any

import pytest

from fivescore.content import MOST_PARTS
from fivescore.errors import InvalidPair
from fivescore.types import IDS_AT_ONCE, MOST_TOKEN_IDS, MOST_TURNS, Pair, parse_pair

CALL: dict[str, Any] = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
USER: dict[str, Any] = {"role": "user", "content": "Q"}
CALLING: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [CALL]}


def called(**function: Any) -> dict[str, Any]:
    return {**CALLING, "tool_calls": [{**CALL, "function": {**CALL["function"], **function}}]}


def asking(*turns: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": [*turns, USER], "response": "A"}


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
        ({"prompt": [{"role": "user", "content": "x", "name": 1}], "response": "A"}, "name"),
        ({"prompt": [{"role": "user", "content": "x", "id": "y"}], "response": "A"}, "id"),
        ({"prompt": "Q", "response": 1}, "response"),
        ({"prompt": "Q", "response": [{"type": "image_url"}]}, "response.0: is not a text"),
        ({"prompt": "Q", "response": {"role": "tool", "content": "A"}}, "response.role: "),
        ({"prompt": "Q", "response": {"tool_calls": [CALL], "audio": "x"}}, "response.audio: "),
        (asking(USER, {**CALLING, "role": "user"}), "prompt.1.tool_calls: only an assistant's"),
        (asking(USER, {**CALLING, "tool_calls": "x"}), "prompt.1.tool_calls: must be a list"),
        (asking(USER, {**CALLING, "tool_calls": [CALL] * 129}), "prompt.1.tool_calls: has 129"),
        (asking(USER, {**CALLING, "tool_calls": [{}]}), "prompt.1.tool_calls.0.name: "),
        (asking(USER, {**CALLING, "tool_calls": [CALL, 1]}), "prompt.1.tool_calls.1: "),
        *(
            (asking(USER, called(**{name: value})), f"prompt.1.tool_calls.0.function.{name}: ")
            for name, value in (
                ("name", ""),
                ("name", "\ud800"),
                ("name", "x" * 257),
                ("arguments", [1]),
                ("arguments", {"x": float("nan")}),
                ("arguments", {"x": object()}),
                ("arguments", "x" * (2**20 + 1)),
                ("thought", "x"),
            )
        ),
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


@pytest.mark.parametrize(
    ("field", "entry", "most"),
    [
        ("prompt", {"role": "user", "content": ""}, MOST_TURNS),
        ("token_ids", 1, MOST_TOKEN_IDS),
    ],
)
def test_lists_end_at_their_limit(field: str, entry: object, most: int) -> None:
    rest = {"response": "A"} if field == "prompt" else {}
    assert isinstance(parse_pair({field: [entry] * most, **rest}), Pair)
    assert refusal({field: [entry] * (most + 1), **rest}).startswith(
        f"{field}: List should have at most {most} items"
    )


def test_a_content_has_a_limited_number_of_parts() -> None:
    parts = [{"type": "text", "text": "a"}] * MOST_PARTS
    for said in (parts, ["a"] * MOST_PARTS):
        turn = {"role": "user", "content": said}
        assert isinstance(parse_pair({"prompt": [turn], "response": "A"}), Pair)
        turn["content"] = [*said, "a"]
        told = f"has {MOST_PARTS + 1} parts, the limit is {MOST_PARTS}: join them"
        assert refusal({"prompt": [turn], "response": "A"}) == f"prompt.0.content: {told}"


@pytest.mark.parametrize("bad", [-1, 2**31, True, 1.0, "1", None])
def test_very_many_token_ids_are_looked_at_as_few_are(bad: object) -> None:
    many = [0, 2**31 - 1] * IDS_AT_ONCE
    good = parse_pair({"token_ids": many})
    assert isinstance(good, Pair)
    assert good.token_ids == many
    assert good.token_ids is not many
    few = refusal({"token_ids": [bad]}).removeprefix("token_ids.0")
    assert refusal({"token_ids": [*many, bad, 1]}) == f"token_ids.{len(many)}{few}"


def test_a_compact_pair_is_the_same_pair() -> None:
    pair = {"prompt": [{"role": "user", "content": "Q"}], "response": "A"}
    for sent in (pair, {"token_ids": [1, 2]}):
        one, compact = parse_pair(sent), parse_pair(sent)
        assert isinstance(one, Pair)
        assert isinstance(compact, Pair)
        compact.compact()
        assert list(compact.token_ids or ()) == (one.token_ids or [])
        assert compact.prompt == one.prompt
        assert not isinstance(compact.token_ids, list)  # which each collection would look into


def test_of_several_faults_the_first_are_named() -> None:
    assert "and 95 more" in refusal({str(number): 0 for number in range(100)})


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (CALLING, CALLING),
        ({**CALLING, "content": None}, CALLING),
        ({"role": "assistant", "tool_calls": [CALL]}, CALLING),
        ({**CALLING, "tool_calls": [{"name": "f", "id": "c"}]}, CALLING),
        ({**CALLING, "tool_calls": [{**CALL, "index": 0}]}, CALLING),
        (called(arguments={"x": "\u00e9", "y": [1]}),
         called(arguments='{"x": "\u00e9", "y": [1]}')),
        (called(arguments=None), CALLING),
        ({**USER, "content": ["Q", {"type": "text", "text": "?"}]}, {**USER, "content": "Q?"}),
        ({"role": "tool", "content": "x", "tool_call_id": "c", "name": "f"},
         {"role": "tool", "content": "x", "tool_call_id": "c", "name": "f"}),
        ({**USER, "tool_calls": None, "refusal": None}, USER),
        ({"role": "assistant", "content": "x", "tool_calls": []},
         {"role": "assistant", "content": "x"}),
    ],
)  # fmt: skip
def test_messages_of_all_clients_become_the_same(
    sent: dict[str, Any], kept: dict[str, Any]
) -> None:
    pair = parse_pair(asking(USER, sent))
    assert isinstance(pair, Pair)
    assert pair.model_dump(mode="json", exclude_none=True) == asking(USER, kept)
    assert parse_pair(pair.model_dump(exclude_none=True)) == pair
    assert isinstance(pair.prompt, list)
    assert pair.prompt[1].is_plain == (kept.keys() == {"role", "content"})
    assert len({*pair.prompt}) <= 3  # pairs of one prompt are found by their messages


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ({"content": "A"}, "A"),
        ([{"type": "text", "text": "A"}, {"text": "B"}], "AB"),
        ({"tool_calls": [CALL]}, CALLING),
        ({**CALLING, "content": "A"}, {**CALLING, "content": "A"}),
    ],
)
def test_a_response_is_a_text_or_a_message_with_calls(sent: Any, kept: Any) -> None:
    pair = parse_pair({"prompt": "Q", "response": sent})
    assert isinstance(pair, Pair), pair
    assert pair.model_dump(mode="json", exclude_none=True)["response"] == kept


@pytest.mark.parametrize("several", [["A", "B"], ("A",), [{"text": "A"}, "B"]])
def test_several_responses_are_not_the_parts_of_one(several: object) -> None:
    detail = "response: must be one text: each response is a pair of its own"
    assert refusal({"prompt": "Q", "response": several}) == detail
