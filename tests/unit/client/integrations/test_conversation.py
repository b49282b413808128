"""What trainers hand over beside texts is an error by name in every integration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fivescore.client import client as clients
from fivescore.client.integrations import areal, ms_swift, trl, verl
from fivescore.client.integrations.conversation import pair, pairs
from fivescore.errors import ConfigurationError, FivescoreError, InvalidPair
from tests.unit.client.fakes import Fleet, Hurry
from tests.unit.model import policy_tokenizers as policies

Json = dict[str, Any]
USER = {"role": "user", "content": "Q"}
SAID = {"role": "assistant", "content": "7"}
CALL = {"function": {"name": "f", "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": "x"}}
IN_MESSAGES: tuple[tuple[Json, str], ...] = (
    ({"function_call": CALL["function"]}, "function_call"),
    ({"reasoning_content": "because"}, "reasoning_content"),
    ({"thinking": "because"}, "thinking"),
    ({"images": np.array([[0.5]])}, "images"),
    ({"content": None}, "content"),
    ({"content": [{"type": "text", "text": "x"}, IMAGE]}, "content.1"),
    ({"content": [{"type": "text", "text": "x", "image": b"x"}]}, "content.0.image"),
)


@pytest.fixture(autouse=True)
def no_threads() -> Iterator[None]:
    """Close the clients that integrations keep, whose threads other tests would see."""
    yield
    for client in list(clients._clients):
        client.close()


@pytest.mark.parametrize(("change", "field"), IN_MESSAGES)
@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda change: pair([{**USER, **change}], "7"), "prompt.0"),
        (lambda change: pair([USER, {**SAID, **change}, USER], "7"), "prompt.1"),
        (lambda change: pair("Q", [{**SAID, **change}]), "completion.0"),
        (lambda change: pair("Q", [SAID, {**USER, **change}, SAID]), "completion.1"),
    ],
)
def test_a_message_that_is_more_than_text_is_an_error(
    make: Callable[[Json], Any], place: str, change: Json, field: str
) -> None:
    error = make(change)
    assert isinstance(error, InvalidPair)
    assert error.detail.startswith(f"{place}.{field}: ")


def test_a_completion_that_a_tool_ends_is_an_error() -> None:
    error = pair("Q", [SAID, {"role": "tool", "content": "x"}])
    assert isinstance(error, InvalidPair)
    assert error.detail.startswith("completion.1.role: ")


@pytest.mark.parametrize("column", ["tools", "images", "image", "documents", "multi_modal_data"])
@pytest.mark.parametrize("value", ["x", ["x"], {"image": ["x"]}, object()])
def test_a_column_that_the_model_would_not_read_ends_the_run(column: str, value: Any) -> None:
    columns = {column: [None, value], "answer": ["7", "7"]}
    with pytest.raises(ConfigurationError, match=f"^{column}: the column"):
        pairs(["Q", "Q"], ["7", "8"], columns)
    fine = {"prompt": "Q", "response": "7"}
    assert pairs(["Q", "Q"], ["7", "7"], {**columns, column: [None, None]}) == [fine, fine]


def test_tool_calls_and_their_results_are_for_the_server_to_judge() -> None:
    calling: Json = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    given = {"type": "function", "function": CALL["function"]}
    sent: Json = {"role": "assistant", "content": "", "tool_calls": [given]}
    result = {"role": "tool", "content": "x", "name": "f", "tool_call_id": "c"}
    completion: list[Json] = [calling, {**result, "id": "m"}, SAID]
    assert pair([USER], completion) == {"prompt": [USER, sent, result], "response": "7"}
    assert pair([USER], [calling]) == {"prompt": [USER], "response": sent}


def _trl(kind: Any) -> Callable[..., Any]:
    function = kind("http://rm", transport=Fleet(), clock=Hurry())
    return function if callable(function) else function[0]  # type: ignore[no-any-return]


CALLS: dict[str, Callable[[Json, Json], Any]] = {
    "trl": lambda turn, row: _trl(trl.RewardFunction)(
        [[USER], [turn]], ["1", "2"], **{name: [None, value] for name, value in row.items()}
    ),
    "trl, attributes": lambda turn, row: _trl(trl.attribute_functions)(
        [[USER], [turn]], ["1", "2"], **{name: [None, value] for name, value in row.items()}
    ),
    "ms-swift": lambda turn, row: ms_swift.Fivescore(transport=Fleet(), clock=Hurry())(
        ["1", "2"], [[USER, SAID], [turn, SAID]],
        **{name: [None, value] for name, value in row.items()},
    ),
    "areal": lambda turn, row: asyncio.run(
        areal.Reward(policies.chatml())("x", "7", messages=[turn], **row)
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("turn", "row", "kind", "field"),
    [
        ({**USER, "tool_calls": [CALL]}, {}, InvalidPair, r"prompt\.0\.tool_calls"),
        ({**USER, "content": [IMAGE]}, {}, InvalidPair, r"prompt\.0\.content\.0"),
        (USER, {"tools": [CALL]}, ConfigurationError, "tools"),
    ],
)
@pytest.mark.parametrize("name", CALLS)
def test_a_reward_function_raises_the_error(
    name: str, turn: Json, row: Json, kind: type[FivescoreError], field: str
) -> None:
    with pytest.raises(kind, match=rf"^(pair [01]: )?{field}: "):
        CALLS[name](turn, row)


def test_trl_may_go_on_without_such_a_sample() -> None:
    function = trl.RewardFunction("http://rm", transport=Fleet(), clock=Hurry(), on_failure="none")
    turns: list[list[Json]] = [[USER], [{**USER, "images": ["x"]}], [USER]]
    assert function(turns, ["1", "2", "3"]) == [1, None, 3]


async def test_verl_raises_the_error() -> None:
    for info in ({"question": [{**USER, "tool_calls": [CALL]}]}, {"question": "Q", "images": [1]}):
        with pytest.raises((InvalidPair, ConfigurationError)):
            await verl.compute_score("data", "7", extra_info=info)
    for fields in (
        {"raw_prompt": np.array([{**USER, "content": [IMAGE]}])},
        {"raw_prompt": [USER], "multi_modal_data": {"image": [object()]}},
    ):
        sample = SimpleNamespace(
            batch={"responses": np.array([1, 2]), "attention_mask": np.array([1, 1, 1])},
            non_tensor_batch=fields,
        )
        tokenizer = SimpleNamespace(decode=lambda ids, **options: "7")
        manager = verl.RewardManager(SimpleNamespace(reward={}), tokenizer)
        with pytest.raises(FivescoreError) as caught:
            await manager.run_single([sample])
        assert isinstance(caught.value, InvalidPair | ConfigurationError)
