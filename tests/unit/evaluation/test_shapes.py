"""Rows in every shape that people publish, and what is said of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivescore.data.reader import Source
from fivescore.errors import ConfigurationError
from fivescore.evaluation import compare, helpsteer2, rmbench, shapes
from fivescore.evaluation.shapes import Preference, helpsteer2_prompt, preferences
from fivescore.evaluation.store import pair_key
from fivescore.model import helpsteer2 as dialogue
from fivescore.types import ATTRIBUTES
from tests.unit.evaluation.sources import source

Json = dict[str, Any]
TURNS = [{"role": "user", "content": "Q"}]
PLAIN = {"prompt": "Q", "chosen": "A", "rejected": "B"}
CONVERSATIONS = {
    side: [*TURNS, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")
}
SAID = {"role": "assistant", "content": "A"}
LLMBAR = {"input": "Q", "output_1": "B", "output_2": "A", "label": "2"}
STRENGTH = {"prompt": "Q", "response_1": "B", "response_2": "A", "preference_strength": 2}
PAIR = {"prompt": "Q", "response": "A"}
HELPSTEER2 = {**PAIR, **dict.fromkeys(ATTRIBUTES, 3)}
RMBENCH = {"prompt": "Q", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"]}


def one(row: Json) -> Preference:
    (found,) = preferences([source(row)])
    return found


def test_shapes_of_preferences() -> None:
    plain = Preference("1", "mine", "Q", "A", "B")
    assert one(PLAIN) == plain
    turns = Preference("1", "mine", "Q", "chosen", "rejected")
    assert one({"prompt": "Q", **CONVERSATIONS}) == turns
    implicit = one(CONVERSATIONS)
    assert (implicit.prompt, implicit.chosen, implicit.rejected) == (TURNS, "chosen", "rejected")
    assert one(LLMBAR) == plain
    assert one({**LLMBAR, "output_1": "A", "output_2": "B", "label": 1}) == plain
    assert one(STRENGTH) == plain
    assert one({**STRENGTH, "preference_strength": -1}).chosen == "B"
    named = one({**PLAIN, "subset": "s", "id": 7})
    assert (named.subset, named.id) == ("s", "7")


CALL = {"function": {"name": "f", "arguments": "{}"}}
IMAGE = {"type": "image", "image": b"x"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**PLAIN, "tools": [CALL]}, "tools would be dropped"),
        ({**STRENGTH, "images": [b"x"]}, "images would be dropped"),
        ({**LLMBAR, "chat_template_kwargs": {"x": 1}}, "chat_template_kwargs would be dropped"),
        ({**PLAIN, "prompt": [{**TURNS[0], "tool_calls": [CALL]}]},
         "prompt: tool_calls of a message only an assistant's message has them"),
        ({**PLAIN, "prompt": [*TURNS, {**TURNS[0], "content": [IMAGE]}]},
         "prompt: content of a message is not a text"),
        ({**PLAIN, "prompt": [{"role": "user", "content": None}]},
         "prompt: content of a message is missing"),
        ({**CONVERSATIONS, "chosen": [*TURNS, {**SAID, "reasoning_content": "x"}]},
         "chosen: reasoning_content of a message would be dropped"),
        ({**CONVERSATIONS, "rejected": [{**TURNS[0], "thinking": "x"}, SAID]},
         "thinking of a message would be dropped"),
        ({**CONVERSATIONS, "rejected": [{**TURNS[0], "content": "R"}, SAID]},
         "rejected has turns that the prompt lacks"),
        ({**CONVERSATIONS, "prompt": "P"}, "chosen has turns that the prompt lacks"),
        ({"prompt": TURNS, "chosen": [SAID, *TURNS, SAID], "rejected": [SAID]},
         "chosen has turns that the prompt lacks"),
    ],
)  # fmt: skip
def test_a_row_that_is_more_than_texts_is_counted_with_its_place(row: Json, reason: str) -> None:
    data = source(PLAIN, row, row)
    assert len(preferences([data])) == 1
    ((found, place),) = data.bad.first.items()
    assert reason in found
    assert place == "mine.jsonl:2"
    assert data.bad.counts.total() == 2


def test_what_is_empty_or_describes_a_row_is_left_out() -> None:
    turn = {**TURNS[0], "id": 1, "tool_calls": None, "refusal": None}
    said = {**SAID, "content": [{"type": "text", "text": "A"}]}
    found = one({"chosen": [turn, said], "rejected": [turn, SAID], "tools": [], "images": None})
    assert (found.prompt, found.chosen) == (TURNS, "A")


def pairs_of(found: Sequence[Any]) -> list[Json]:
    return [pair for each in found for pair in each.pairs()]


KINDS: list[tuple[Json, Callable[[Sequence[Source]], Any], Callable[[Any], list[Json]]]] = [
    *((row, preferences, pairs_of) for row in (PLAIN, CONVERSATIONS, LLMBAR, STRENGTH)),
    (HELPSTEER2, helpsteer2.examples, lambda found: found[0]),
    (RMBENCH, rmbench.items, pairs_of),
    *((row, compare.pairs_of, lambda found: found.pairs) for row in (PAIR, PLAIN)),
]
MISSING = object()
ODD: tuple[Any, ...] = (
    MISSING, None, 1, "", "x", [], [1], [None], {}, True, float("nan"), float("inf"), b"x",
    "\ud800", [{}], [{"content": 1}], [{"content": b"x"}], ["a", "b", 3], 10**400,
)  # fmt: skip


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize(("row", "read", "pairs"), KINDS)
def test_an_odd_field_is_used_or_counted_with_its_place_and_harms_no_other_row(
    row: Json, read: Callable[[Any], Any], pairs: Callable[[Any], list[Json]], value: Any
) -> None:
    expected = pairs(read([source(row, row)]))
    for name in row:
        odd = {field: given for field, given in row.items() if field != name}
        if value is not MISSING:
            odd[name] = value
        data = source(row, odd, row)
        found = pairs(read([data]))
        for pair in found:
            pair_key(pair, "never")
        if data.bad.counts:
            assert found == expected
            assert list(data.bad.first.values()) == ["mine.jsonl:2"]
        else:
            assert len(found) * 2 == len(expected) * 3


@pytest.mark.parametrize(
    ("row", "read", "reason"),
    [
        ({"response": "A"}, compare.pairs_of, "no prompt"),
        ({"prompt": "Q"}, compare.pairs_of, "no chosen"),
        ({"prompt": "Q", "response": 1}, compare.pairs_of, "response is not text"),
        ({**PLAIN, "chosen": 1}, compare.pairs_of, "chosen is neither text nor messages"),
        ({**STRENGTH, "preference_strength": 0}, preferences, "neither response is better"),
        ({"chosen": "A", "rejected": "B"}, preferences, "no prompt"),
        ({**LLMBAR, "label": 3}, preferences, "label is neither 1 nor 2"),
        ({**HELPSTEER2, "prompt": None}, helpsteer2.examples, "no prompt"),
        ({**HELPSTEER2, "coherence": "good"}, helpsteer2.examples, "coherence is not a number"),
        ({**RMBENCH, "chosen": "a"}, rmbench.items, "chosen is not a list of three texts"),
    ],
)
def test_data_without_a_usable_row_is_one_error_that_says_why_and_where(
    row: Json, read: Callable[[Any], Any], reason: str
) -> None:
    with pytest.raises(ConfigurationError, match="no row can be used: 2 not used: ") as caught:
        read([source(row, row)])
    assert f"{reason} (first: mine.jsonl:1)" in caught.value.detail
    with pytest.raises(ConfigurationError, match=r"no row can be used$"):
        read([source()])


def test_what_is_left_out_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    shapes.preferences([source(PLAIN, {}, {})])
    assert caplog.messages == ["mine.jsonl: 2 not used: no chosen (first: mine.jsonl:2)"]


PIECES = st.sampled_from(
    ["Hi", "\n", "\n<extra_id_1>Assistant\n", "\n<extra_id_1>User\n", "<extra_id_1>", ""]
)


@given(st.lists(PIECES, max_size=8).map("".join))
def test_turns_in_a_prompt_are_those_that_training_and_serving_see(text: str) -> None:
    found = helpsteer2_prompt({"prompt": text})
    turns = [{"role": "user", "content": found}] if isinstance(found, str) else found
    assert turns == [turn.model_dump(exclude_none=True) for turn in dialogue.messages(text)]
