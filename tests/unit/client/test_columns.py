"""Data sets as people have them: which columns hold the pair, and what it is then."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fivescore.client.columns import Given, layout
from fivescore.errors import ConfigurationError, InvalidPair
from fivescore.types import Pair, parse_pair

Json = dict[str, Any]
Q, A = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
TALK = [Q, A, {"role": "user", "content": "Q2"}, {"role": "assistant", "content": "A2"}]
PLAIN: Json = {"prompt": "Q", "response": "A"}
TURNS: Json = {"prompt": TALK[:3], "response": TALK[3]}
SHARED = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]


def pair(row: Json, **given: str) -> Json:
    return layout([row], Given(**given), "x.jsonl").pair(row)


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({**PLAIN, "label": 1}, PLAIN),
        ({**PLAIN, "principle": "clarity"}, {**PLAIN, "principle": "clarity"}),
        ({**PLAIN, "messages": TALK}, PLAIN),
        ({"prompt": [Q], "response": "A"}, {"prompt": [Q], "response": "A"}),
        ({"text": "<s>Q A"}, {"text": "<s>Q A"}),
        ({"token_ids": "[1, 2]", "text": ""}, {"token_ids": [1, 2]}),
        ({"messages": TALK, "prompt": "Q"}, TURNS),
        ({"messages": json.dumps(TALK)}, TURNS),
        ({"conversation": TALK}, TURNS),
        ({"conversations": SHARED}, {"prompt": [Q], "response": A}),
        ({"instruction": "Q", "input": "", "output": "A"}, PLAIN),
        ({"instruction": "Q", "input": "I", "output": "A"}, {"prompt": "Q\nI", "response": "A"}),
        ({"instruction": "Q", "response": "A", "context": ""}, PLAIN),
        ({"question": "Q", "answer": "A"}, PLAIN),
        ({"query": "Q", "response": "A"}, PLAIN),
        ({"input": "Q", "output": "A"}, PLAIN),
        ({"prompt": "Q", "completion": "A"}, PLAIN),
        ({"prompt": [Q], "completion": [A]}, {"prompt": [Q], "response": A}),
        ({**PLAIN, "system": None, "context": "beside a prompt of that name"}, PLAIN),
    ],
)
def test_the_columns_of_a_pair_are_found(row: Json, found: Json) -> None:
    assert pair(row) == found
    assert isinstance(parse_pair(found), Pair)


@pytest.mark.parametrize(
    ("row", "given", "found"),
    [
        ({"q": "Q", "a": "A"}, {"prompt": "q", "response": "a"}, PLAIN),
        ({"q": "Q", "answer": "A"}, {"prompt": "q"}, PLAIN),
        ({"question": "Q", "answer": "B", "a": "A"}, {"response": "a", "prompt": "question"},
         PLAIN),
        ({"talk": TALK, **PLAIN}, {"messages": "talk"}, TURNS),
        ({**PLAIN, "system": "S"}, {"prompt": "prompt"}, PLAIN),
        ({**PLAIN, "system": "S"}, {"system": "system"},
         {"prompt": [{"role": "system", "content": "S"}, Q], "response": "A"}),
        ({"talk": [Q, A], "s": "S"}, {"messages": "talk", "system": "s"},
         {"prompt": [{"role": "system", "content": "S"}, Q], "response": A}),
        ({"q": "Q", "response": "A", "system": ""}, {"prompt": "q", "system": "system"}, PLAIN),
    ],
)  # fmt: skip
def test_columns_may_be_given(row: Json, given: Json, found: Json) -> None:
    assert pair(row, **given) == found


@pytest.mark.parametrize(
    ("row", "given", "told"),
    [
        ({"a": 1, "b": 2}, {}, r"has no columns .*\(its columns are a, b\): name them"),
        ({"prompt": "Q"}, {}, "its columns are prompt"),
        ({}, {}, "it has no columns"),
        (PLAIN, {"prompt": "q"}, "has no column q: its columns are prompt, response"),
        (PLAIN, {"system": "s"}, "has no column s"),
        ({"question": "Q", "answer": "A", "response": "B"}, {}, "several .* question and answer"),
        ({"question": "Q", "answer": "A", "text": "T"}, {}, "several .* or text: choose"),
        ({"messages": TALK, "conversations": SHARED}, {}, "messages, or conversations"),
        ({"q": "Q", "answer": "A", "output": "B"}, {"prompt": "q"}, "several"),
        ({**PLAIN, "system": "S"}, {}, "a column system .* give --system-column system .* or"
         " --prompt-column prompt"),
        ({"conversations": SHARED, "system": "S"}, {}, "or --messages-column conversations"),
        ({"instruction": "Q", "output": "A", "history": [["q", "a"]]}, {}, "a column history"),
        ({"question": "Q", "answer": "A", "context": "C"}, {}, "a column context"),
    ],
)  # fmt: skip
def test_what_is_not_understood_names_the_columns(row: Json, given: Json, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        pair(row, **given)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({}, "the row has no column messages"),
        ({"messages": "no JSON"}, "messages: is not a list of messages"),
        ({"messages": []}, "is not a list of messages"),
        ({"messages": [Q]}, "the last message must be the assistant's"),
    ],
)
def test_a_row_that_differs_from_the_first_is_a_bad_pair(row: Json, told: str) -> None:
    found = layout([{"messages": TALK}], Given(), "x.jsonl")
    with pytest.raises(InvalidPair, match=told):
        found.pair(row)


@pytest.mark.parametrize(
    ("row", "given", "told"),
    [
        ({"instruction": "Q", "input": ["I"], "output": "A"}, {}, "input: must be a text"),
        ({"instruction": [Q], "input": "I", "output": "A"}, {}, "input: must be a text"),
        ({"text": "T", "system": "S"}, {"system": "system"}, "system: goes with a prompt"),
        ({"prompt": None, "response": "A", "s": "S"}, {"system": "s"}, "s: goes with a prompt"),
    ],
)
def test_nothing_beside_the_prompt_is_dropped(row: Json, given: Json, told: str) -> None:
    with pytest.raises(InvalidPair, match=told):
        pair(row, **given)


def test_what_only_describes_a_message_is_left_out_and_the_rest_is_not() -> None:
    row = {"messages": [{**Q, "id": "1", "weight": 0, "name": None}, {**A, "reasoning": "R"}]}
    assert pair(row) == {"prompt": [Q], "response": {**A, "reasoning": "R"}}
