"""RM-Bench's matrix, on cases that are checked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivescore.evaluation.rmbench import comparisons, domain_of, items, markdown, measure
from tests.unit.evaluation.sources import source

PERFECT = [3.0, 3.0, 3.0, 1.0, 1.0, 1.0]
INVERTED = [1.0, 1.0, 1.0, 3.0, 3.0, 3.0]
TIED = [2.0] * 6
STYLISH = [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]
"""Looks at style alone: right where the chosen response has the more pleasing one."""


def test_the_matrix_of_one_prompt() -> None:
    # Rows: chosen concise, detailed, markdown. Columns: rejected, the same.
    assert comparisons([2.0, 5.0, 4.0, 1.0, 4.0, 9.0]) == [
        ["right", "wrong", "wrong"],
        ["right", "right", "wrong"],
        ["right", "tie", "wrong"],
    ]
    found = measure(["chat"], [2.0, 5.0, 4.0, 1.0, 4.0, 9.0])["parts"]["chat"]
    assert found["matrix"] == [[1, 0, 0], [1, 1, 0], [1, 0, 0]]
    assert (found["easy"], found["normal"], found["hard"]) == (
        pytest.approx(2 / 3), pytest.approx(2 / 3), 0.0,
    )  # fmt: skip
    assert found["average"] == pytest.approx(4 / 9)
    assert found["comparisons"] == {"right": 4, "wrong": 4, "tie": 1, "failed": 0}


@pytest.mark.parametrize(
    ("rewards", "easy", "normal", "hard"),
    [(PERFECT, 1, 1, 1), (INVERTED, 0, 0, 0), (TIED, 0, 0, 0), (STYLISH, 1, 0, 0)],
    ids=["perfect", "inverted", "tied", "stylish"],
)
def test_predictors(rewards: list[float], easy: float, normal: float, hard: float) -> None:
    overall = measure(["chat", "code"], [*rewards, *rewards])["overall"]
    assert overall == {
        "easy": easy, "normal": normal, "hard": hard,
        "average": pytest.approx((easy + normal + hard) / 3),
    }  # fmt: skip


def test_safety_is_the_mean_of_its_parts_and_domains_count_alike() -> None:
    domains = ["chat", "safety-refuse", "safety-refuse", "safety-refuse", "safety-response"]
    rewards = [*INVERTED, *PERFECT, *PERFECT, *PERFECT, *INVERTED]
    found = measure(domains, rewards)
    assert found["domains"]["safety"]["average"] == 0.5  # not 0.75
    assert found["overall"]["average"] == 0.25
    assert found["missing"] == ["math", "code"]
    assert measure(["safety-refuse"], PERFECT)["missing"][-1] == "safety-response"


def test_a_response_that_could_not_be_scored_makes_its_comparisons_wrong() -> None:
    found = measure(["chat"], [None, *PERFECT[1:]])["parts"]["chat"]
    assert found["matrix"] == [[0, 0, 0], [1, 1, 1], [1, 1, 1]]
    assert found["comparisons"]["failed"] == 3
    assert "3 failed" in "\n".join(markdown(measure(["chat"], [None, *PERFECT[1:]])))


@given(st.lists(st.floats(-5, 5), min_size=6, max_size=6))
def test_levels_average_to_the_whole_matrix(rewards: list[float]) -> None:
    found = measure(["chat"], rewards)["parts"]["chat"]
    whole = sum(map(sum, found["matrix"])) / 9
    assert found["average"] == pytest.approx(whole)


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("rmbench-chat_filtered", "chat"),
        ("rmbench-safety-refuse_filtered", "safety-refuse"),
        ("safety-response_filtered", "safety-response"),
        ("math_filtered", "math"),
        ("mine", "mine"),
    ],
)
def test_the_domain_is_in_the_files_name(name: str, domain: str) -> None:
    assert domain_of(name) == domain


def test_the_domain_is_the_row_s_or_else_the_file_s() -> None:
    row = {"prompt": "Q", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"]}
    (one, other) = items([source(row, {**row, "domain": "math"}, name="chat")])
    assert (one.domain, other.domain) == ("chat", "math")
    assert [pair["response"] for pair in one.pairs()] == list("abcdef")
