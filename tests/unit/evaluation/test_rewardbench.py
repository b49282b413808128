"""RewardBench's arithmetic: published results come out of published accuracies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivescore.errors import ConfigurationError
from fivescore.evaluation.rewardbench import (
    ROWS,
    SECTION_OF,
    SECTIONS,
    known,
    markdown,
    measure,
    overall_score,
    row_shares,
    section_scores,
)
from fivescore.evaluation.shapes import Preference
from fivescore.evaluation.tally import Tally

PUBLISHED: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("published_rewardbench.json").read_bytes()
)
TENTH_OF_A_PERCENT = 0.001


@pytest.mark.parametrize("model", PUBLISHED, ids=lambda model: model["model"])
def test_published_scores_come_out_to_a_tenth_of_a_percent(model: dict[str, Any]) -> None:
    sections = section_scores(model["subsets"])
    assert sections == pytest.approx(model["sections"], abs=TENTH_OF_A_PERCENT)
    if "overall" in model:
        assert overall_score(sections) == pytest.approx(model["overall"], abs=TENTH_OF_A_PERCENT)


def test_the_subsets_are_those_of_the_paper() -> None:
    totals = {section: sum(subsets.values()) for section, subsets in SECTIONS.items()}
    assert totals == {"chat": 358, "chat-hard": 456, "safety": 740, "reasoning": 1968}
    assert len(ROWS) == 23
    assert sum(ROWS.values()) == 2985  # the rows of the split 'filtered'


@given(st.floats(0, 1))
def test_a_model_that_is_equally_good_everywhere_scores_just_that(share: float) -> None:
    sections = section_scores(dict.fromkeys(ROWS, share))
    assert list(sections) == list(SECTIONS)
    assert overall_score(sections) == pytest.approx(share)


def tallies(**changed: Tally) -> dict[str, Tally]:
    found = {name: Tally(right=rows) for name, rows in ROWS.items()}
    return {**found, **{name.replace("_", "-"): tally for name, tally in changed.items()}}


def test_perfect_inverted_and_tied_models() -> None:
    perfect = measure(tallies())
    assert perfect["overall"] == 1.0
    assert all(section["complete"] for section in perfect["sections"].values())
    assert not perfect["missing"]
    inverted = measure({name: Tally(wrong=rows) for name, rows in ROWS.items()})
    tied = measure({name: Tally(ties=rows) for name, rows in ROWS.items()})
    failed = measure({name: Tally(failed=rows) for name, rows in ROWS.items()})
    assert inverted["overall"] == tied["overall"] == failed["overall"] == 0.0


def test_math_counts_as_much_as_all_code() -> None:
    found = measure(tallies(math_prm=Tally(wrong=447)))
    assert found["sections"]["reasoning"]["score"] == pytest.approx(0.5)
    assert found["overall"] == pytest.approx(0.875)


def test_what_is_incomplete_is_said() -> None:
    found = measure({"llmbar-natural": Tally(right=1, wrong=1), "mt-bench-hard": Tally(right=37)})
    assert found["overall"] is None
    assert found["sections"] == {
        "chat-hard": {"score": pytest.approx((0.5 * 100 + 37) / 137), "complete": False}
    }
    assert found["partial"] == {"llmbar-natural": "2 of 100 rows"}
    assert len(found["missing"]) == 21
    assert "Not the published benchmark" in "\n".join(markdown(found))
    assert "Not the published benchmark" not in "\n".join(markdown(measure(tallies())))


def preference(subset: str) -> Preference:
    return Preference("1", subset, "Q", "A", "B")


def test_llmbars_own_file_names_are_known() -> None:
    found = known([preference("llmbar-adver-Manual"), preference("hep-go")])
    assert found == ["llmbar-adver-manual", "hep-go"]
    with pytest.raises(ConfigurationError, match="'mine' is no subset"):
        known([preference("mine")])


@given(st.lists(st.sampled_from(sorted(ROWS)), min_size=1, max_size=60), st.randoms())
def test_shares_of_rows_add_up_to_the_overall_score(subsets: list[str], random: Any) -> None:
    shares = row_shares(subsets)
    assert sum(shares) == pytest.approx(1)
    right = [random.random() < 0.5 for _ in subsets]
    accuracies = {
        name: sum(r for r, one in zip(right, subsets, strict=True) if one == name)
        / subsets.count(name)
        for name in set(subsets)
    }
    sections = section_scores(accuracies)
    assert len(sections) == len({SECTION_OF[name] for name in subsets})
    weighted = sum(share for share, r in zip(shares, right, strict=True) if r)
    assert weighted == pytest.approx(sum(sections.values()) / len(sections))
