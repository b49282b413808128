"""What people have is scored as the pairs that it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest

from fivescore.client import AsyncRewardClient, RewardClient
from fivescore.client.rows import fields_of, rows_of
from fivescore.errors import ConfigurationError, InvalidPair
from fivescore.types import Pair
from tests.unit.client.fakes import Fleet, Hurry, pairs

Json = dict[str, Any]
PLAIN: Json = {"prompt": "Q", "response": "1"}
TWO: list[Json] = [PLAIN, {"prompt": "Q2", "response": "2"}]
TUPLES = [(pair["prompt"], pair["response"]) for pair in TWO]


class Polars:
    """A frame as polars has it, which is not installed."""

    columns = ("prompt", "response")

    def to_dicts(self) -> list[Json]:
        return TWO


def generated() -> Iterator[Json]:
    yield from TWO


ONE: list[Any] = [
    PLAIN, Pair(**PLAIN), ("Q", "1"), ["Q", "1"], [("Q", "1")], [["Q", "1"]],
    {"question": "Q", "answer": "1"},
]  # fmt: skip
SEVERAL: list[Callable[[], Any]] = [
    lambda: TWO, lambda: TUPLES, lambda: [list(pair) for pair in TUPLES], lambda: tuple(TWO),
    generated, lambda: ((p, r) for p, r in TUPLES), lambda: map(dict, TWO),
    lambda: {name: [pair[name] for pair in TWO] for name in PLAIN},
    lambda: {name: np.array([pair[name] for pair in TWO]) for name in PLAIN},
    lambda: pandas.DataFrame(TWO), lambda: pandas.DataFrame(TWO, index=[7, 3]), Polars,
    lambda: pyarrow.Table.from_pylist(TWO), lambda: [Pair(**pair) for pair in TWO],
    lambda: [{**pair, "id": n, "label": {"x": 1}} for n, pair in enumerate(TWO)],
    lambda: pandas.DataFrame([{**TWO[0], "principle": None, "n": 1.5}, TWO[1]]),
]  # fmt: skip


@pytest.mark.parametrize("given", ONE, ids=repr)
async def test_one_pair_is_one_score(given: Any) -> None:
    fleet = Fleet()
    client = AsyncRewardClient("http://rm", transport=fleet, clock=Hurry())
    assert [score.reward for score in await client.score(given)] == [1]
    assert fleet.requests[0].pairs == [PLAIN]


@pytest.mark.parametrize("given", SEVERAL)
def test_whatever_holds_pairs_is_scored_in_its_order(given: Callable[[], Any]) -> None:
    fleet = Fleet()
    with RewardClient("http://rm", transport=fleet, clock=Hurry()) as client:
        assert [score.reward for score in client.score(given())] == [1, 2]
    assert [pair for request in fleet.requests for pair in request.pairs] == TWO


def test_a_table_s_arrays_are_lists() -> None:
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "1"}]
    frame = pandas.DataFrame({"messages": [np.array(turns, object)], "n": [np.nan]})
    assert rows_of(frame) == [{"messages": turns, "n": None}]
    assert rows_of({"messages": frame["messages"].to_numpy()}) == [{"messages": turns}]


async def test_nothing_is_no_request() -> None:
    fleet = Fleet()
    client = AsyncRewardClient("http://rm", transport=fleet, clock=Hurry())
    nothing: list[Any] = [
        [],
        {"prompt": [], "response": []},
        pandas.DataFrame({"prompt": []}),
        iter(()),
    ]
    for given in nothing:
        assert await client.score(given) == []
    assert not fleet.requests


@pytest.mark.parametrize("given", ["QA", b"QA", 5, None])
async def test_what_holds_no_pairs_is_refused_with_what_to_give(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="holds no pairs: give a list of"):
        await AsyncRewardClient("http://rm", transport=Fleet()).score(given)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]},
        {"prompt": [{"role": "user", "content": "Q"}], "response": {"content": "A"}},
        {"token_ids": [1, 2]},
        {"prompt": "Q", "response": [{"type": "text", "text": "A"}]},
    ],
)
def test_a_pair_with_lists_is_one_pair_and_no_columns(row: Json) -> None:
    assert rows_of(row) == [row]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({**PLAIN, "system": "S", "id": 1}, "the pair has a column system beside prompt"),
        ({"question": "Q", "answer": "A", "completion": "B", "text": "C"}, "several columns"),
    ],
)
def test_what_is_not_clear_is_the_pairs_own_error(row: Json, told: str) -> None:
    with pytest.raises(InvalidPair, match=told) as caught:
        fields_of(row)
    assert "--" not in caught.value.detail


@pytest.mark.parametrize("name", ["reponse", "Response", "principal", "prompts", "tools", "images"])
async def test_a_misspelt_field_and_one_that_holds_more_are_named(name: str) -> None:
    client = AsyncRewardClient("http://rm", transport=Fleet(), clock=Hurry())
    (error,) = await client.score({**PLAIN, "id": 1, name: ["x"]}, errors="return")
    assert isinstance(error, InvalidPair)
    assert error.detail.startswith(f"{name}: ")


@pytest.mark.parametrize("name", ["prompt_id", "response_id", "score", "label", "output"])
def test_what_only_describes_a_row_is_left_out(name: str) -> None:
    assert fields_of({**PLAIN, name: ["x"]}) == PLAIN


async def test_priority_goes_with_every_request() -> None:
    fleet = Fleet()
    client = AsyncRewardClient("http://rm", transport=fleet, priority=-3, batch_size=2)
    await client.score(pairs(4))
    assert {request.headers["X-Priority"] for request in fleet.requests} == {"-3"}
    with pytest.raises(ConfigurationError, match="priority 1001"):
        RewardClient("http://rm", priority=1001)
