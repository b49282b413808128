"""Rows: what the rules say, from the training's side of the split alone, the same every time."""

from __future__ import annotations

import random

import pytest

from demo import damage, data, texts
from demo.labels import complexity, labels, verbosity
from demo.texts import Text
from fivescore.model.manifest import ATTRIBUTES

RESPONSE = "First, boil the water. Then pour it over the leaves. Finally, take out the leaves."


@pytest.fixture
def rng() -> random.Random:
    return random.Random(1)


def _texts() -> list[Text]:
    subjects = ("tea", "coffee", "cocoa", "juice")
    return [
        Text(f"chat {s}", "chat", f"Make {s}?", RESPONSE + f" Enjoy the {s}.") for s in subjects
    ]


def test_units_and_join_are_inverse() -> None:
    text = "1. One thing.\n   - Another.\n\nThe end! Is it?"
    assert damage.join(*damage.units(text)) == text
    assert damage.units(text)[0] == ["1. One thing.", "- Another.", "The end!", "Is it?"]


def test_shuffling_keeps_every_sentence_and_changes_the_order(rng: random.Random) -> None:
    shuffled = damage.shuffled(RESPONSE, rng)
    assert shuffled is not None
    assert shuffled != RESPONSE
    assert sorted(damage.units(shuffled)[0]) == sorted(damage.units(RESPONSE)[0])
    assert damage.shuffled("One sentence alone.", rng) is None


def test_a_cut_is_a_beginning_that_ends_inside_a_sentence(rng: random.Random) -> None:
    for _ in range(20):
        cut = damage.truncated(RESPONSE, rng)
        assert cut is not None
        assert RESPONSE.startswith(cut)
        assert cut[-1].isalnum()


def test_an_excerpt_ends_with_a_sentence(rng: random.Random) -> None:
    assert damage.excerpt(RESPONSE, rng)[-1] == "."


def test_labels_follow_the_rules() -> None:
    assert verbosity("word " * 8) == 0.0
    assert verbosity("word " * 512) == 4.0
    easy, hard = "The cat sat on it.", "Heteroscedasticity invalidates conventional inference."
    assert complexity(easy) == 0.0
    assert complexity(hard) == 4.0
    intact, other = labels(RESPONSE), labels(RESPONSE, ("mismatched",))
    assert (intact["helpfulness"], intact["correctness"], intact["coherence"]) == (4.0, 4.0, 4.0)
    assert (other["helpfulness"], other["correctness"], other["coherence"]) == (0.0, 0.0, 4.0)
    assert other["verbosity"] == intact["verbosity"]


def test_rows_are_the_same_every_time_and_in_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "WORD_ROWS", 10)
    made = data.rows(_texts(), 7)
    assert made == data.rows(_texts(), 7)
    assert {len(row) for row in made} == {7}
    values = [row[name] for row in made for name in ATTRIBUTES]
    assert all(0.0 <= value <= 4.0 for value in values)


def test_one_problem_in_six_languages_is_one_group() -> None:
    groups = {texts.group_of("code", {"task_id": f"{name}/8"}) for name in ("CPP", "Go", "Rust")}
    assert len(groups) == 1
    assert texts.split_of("a") in {"train", "validation", "held_out"}


def test_a_response_that_the_data_set_cut_off_ends_at_its_last_sentence() -> None:
    assert texts._mend("It is done. And so", False) == "It is done."
    assert texts._mend("It is done. And so.", True) == "It is done."
    assert texts._mend("It is done.", False) == "It is done."
