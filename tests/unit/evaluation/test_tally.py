"""Tallies and intervals on values that are checked by hand."""

from __future__ import annotations

import pytest

from fivescore.evaluation.tally import Tally, count, judge, wilson


@pytest.mark.parametrize(
    ("chosen", "rejected", "outcome"),
    [(2.0, 1.0, "right"), (1.0, 2.0, "wrong"), (1.0, 1.0, "tie"), (None, 1.0, "failed"),
     (1.0, None, "failed"), (None, None, "failed")],
)  # fmt: skip
def test_outcomes(chosen: float | None, rejected: float | None, outcome: str) -> None:
    assert judge(chosen, rejected) == outcome


def test_ties_and_failures_are_wrong() -> None:
    tally = count(["right", "wrong", "tie", "failed"])
    assert tally == Tally(1, 1, 1, 1)
    assert tally.accuracy == 0.25
    assert Tally().summary()["accuracy"] is None


def test_wilsons_interval() -> None:
    # Wilson's interval for 8 of 10, as in Newcombe 1998.
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == pytest.approx(1.0)
