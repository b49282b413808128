"""Two servers' scores against each other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fivescore.errors import ConfigurationError
from fivescore.evaluation.compare import markdown, measure, pairs_of
from fivescore.evaluation.preferences import measure as measure_preferences
from fivescore.evaluation.store import Failure, Result
from fivescore.types import Score
from tests.unit.evaluation.sources import source


def scores(*rewards: float | None) -> list[Result]:
    return [
        Failure("too_long", ".") if reward is None else Score({"helpfulness": -reward}, reward, 3)
        for reward in rewards
    ]


def preferences(rows: int) -> list[dict[str, Any]]:
    return [{"prompt": f"Q{i}", "chosen": "A", "rejected": "B", "id": i} for i in range(rows)]


def test_flips_ties_and_failures_are_told_apart() -> None:
    asked = pairs_of([source(*preferences(5))])
    ours = scores(2, 1, 2, 1, 1, 2, 2, 1, 2, 1)
    theirs = scores(2, 1, 1, 2, 2, 1, 1, 1, None, 1)
    found, _ = measure(asked, ours, theirs)
    assert found["pairs"] == {"total": 10, "scored_by_both": 9}
    turned = found["preferences"]
    assert turned["flipped"] == 2
    assert turned["flipped_share"] == 0.4
    assert turned["changed"] == {
        "right to wrong": 1, "wrong to right": 1, "right to tie": 1, "right to failed": 1,
    }  # fmt: skip
    assert turned["flipped_rows"] == [
        {"row": 1, "place": "mine 1", "margin_a": 1, "margin_b": -1},
        {"row": 2, "place": "mine 2", "margin_a": -1, "margin_b": 1},
    ]
    assert (turned["a"]["accuracy"], turned["b"]["accuracy"]) == (0.8, 0.4)
    text = "\n".join(markdown(found))
    assert "2 preferences flipped** (40.0%)" in text
    assert "| mine 1 | 1 | -1 |" in text
    json.dumps(found, allow_nan=False)


def test_the_largest_change_is_shown_with_its_pair() -> None:
    rows = [{"prompt": f"Q{i}", "response": f"A{i}"} for i in range(4)]
    asked = pairs_of([source(*rows)])
    assert not asked.preferred
    found, points = measure(asked, scores(1, 2, 3, 4), scores(1, 2.5, 1, 4))
    largest = found["values"]["reward"]["largest"]
    assert (largest["change"], largest["a"], largest["b"]) == (-2, 3, 1)
    assert (largest["index"], largest["place"]) == (2, "mine.jsonl:3")
    assert (largest["prompt"], largest["response"]) == ("Q2", "A2")
    assert len(largest["pair"]) == 32
    assert found["values"]["reward"]["mean_absolute_change"] == pytest.approx(0.625)
    assert set(points) == {"reward", "helpfulness"}
    assert found["preferences"] is None


def test_equal_servers_agree_wholly_and_constant_ones_have_no_correlation() -> None:
    asked = pairs_of([source(*preferences(2))])
    found, _ = measure(asked, scores(1, 2, 3, 4), scores(1, 2, 3, 4))
    assert found["values"]["reward"]["spearman"] == pytest.approx(1)
    assert found["preferences"]["flipped"] == 0
    constant, _ = measure(asked, scores(1, 2, 3, 4), scores(5, 5, 5, 5))
    assert constant["values"]["reward"]["kendall"] is None
    assert constant["values"]["reward"]["note"] == "one side is constant"


def test_nothing_in_common_is_said() -> None:
    asked = pairs_of([source(*preferences(1))])
    with pytest.raises(ConfigurationError, match="no pair could be scored by both"):
        measure(asked, scores(None, 1), scores(1, None))


@pytest.mark.parametrize(
    ("chosen", "rejected", "accuracy"),
    [((2, 3), (1, 1), 1.0), ((1, 1), (2, 3), 0.0), ((1, 1), (1, 1), 0.0), ((None, 2), (1, 1), 0.5)],
    ids=["perfect", "inverted", "tied", "failed"],
)
def test_preferences_of_predictors(
    chosen: tuple[float, ...], rejected: tuple[float, ...], accuracy: float
) -> None:
    found, margins = measure_preferences(["a", "b"], scores(*chosen), scores(*rejected))
    assert found["overall"]["accuracy"] == accuracy
    assert list(found["subsets"]) == ["a", "b"]
    # The attribute is the reward turned round.
    alone = found["by_attribute_alone"]["helpfulness"]
    assert alone["right"] == found["overall"]["wrong"]
    assert len(margins) == 2 - found["overall"]["failed"]
