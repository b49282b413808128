"""Scores as a data frame, beside the pairs that they are of."""

from __future__ import annotations

from typing import Any

import pandas
import pytest

from fivescore.client import Unreachable, scores_to_frame
from fivescore.errors import ConfigurationError
from fivescore.types import Pair, Score

FIRST = Score({"helpfulness": 1.0, "verbosity": -1.0}, 0.5, 7, 2, False)
SCORES = [FIRST, None, Unreachable("gone")]
NAMES = ["helpfulness", "verbosity", "reward", "tokens", "cached_tokens", "truncated"]


def test_a_score_is_one_flat_dict() -> None:
    assert FIRST.to_dict() == dict(zip(NAMES, (1.0, -1.0, 0.5, 7, 2, False), strict=True))


def test_a_row_a_score_and_empty_where_a_pair_failed() -> None:
    frame = scores_to_frame(SCORES)
    assert list(frame) == [*NAMES, "error"]
    assert frame.iloc[0].to_dict() | {"error": None} == {**FIRST.to_dict(), "error": None}
    assert frame["reward"].isna().tolist() == [False, True, True]
    assert frame["error"].tolist()[2] == "unreachable"
    assert list(scores_to_frame([FIRST])) == NAMES


@pytest.mark.parametrize(
    "pairs",
    [
        [{"prompt": "Q", "response": "A", "id": n} for n in range(3)],
        pandas.DataFrame([{"prompt": "Q", "response": "A", "id": n} for n in range(3)], [5, 6, 5]),
    ],
)
def test_the_pairs_columns_and_index_stay(pairs: Any) -> None:
    frame = scores_to_frame(SCORES, pairs, prefix="rm_")
    assert list(frame)[:5] == ["prompt", "response", "id", "rm_helpfulness", "rm_verbosity"]
    assert frame["id"].tolist() == [0, 1, 2]
    assert frame["rm_reward"].tolist()[0] == 0.5
    assert isinstance(pairs, list) or frame.index.equals(pairs.index)


def test_pairs_of_other_forms_have_columns_too() -> None:
    frame = scores_to_frame([FIRST] * 2, [("Q", "A"), Pair(prompt="Q", response="A")])
    assert frame[["prompt", "response"]].to_numpy().tolist() == [["Q", "A"]] * 2


@pytest.mark.parametrize(
    ("pairs", "told"),
    [([("Q", "A")], "1 pairs and 3 scores"), ([{"reward": 1}] * 3, "a column reward")],
)
def test_what_does_not_go_together_is_refused(pairs: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        scores_to_frame(SCORES, pairs)
