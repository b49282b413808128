"""Rows to examples: the ids that the server makes, labels, and a count of every other row."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from fivescore import content
from fivescore.data.rows import Row
from fivescore.model.conversation import Conversation
from fivescore.model.manifest import ATTRIBUTES, PromptFormat
from fivescore.training.rows import (
    MASKED,
    Example,
    ReadRow,
    Report,
    attribute_rows,
    preference_rows,
    prepare,
)
from fivescore.types import Message, Pair
from tests.training import SEVERAL_TURNS, TURNS

GOOD = {"prompt": "a b", "response": "c d", **dict.fromkeys(ATTRIBUTES, 2)}
COMPARISON = {"prompt": "a", "response_1": "b", "response_2": "c d", "preference_strength": -2}
MESSAGES = [Message.model_validate(turn) for turn in TURNS]


@pytest.fixture(scope="module")
def tokenizer(backbone: Path) -> Any:
    return AutoTokenizer.from_pretrained(backbone)


def prepared(
    tokenizer: Any, *rows: Any, style: Any = "chat_template", read: ReadRow | None = None
) -> tuple[list[Example], Report]:
    report = Report("train")
    conversation = Conversation(PromptFormat(format=style), tokenizer)
    raw = [Row("f", number, row, "" if row else "bad") for number, row in enumerate(rows, 1)]
    reader = read or attribute_rows(ATTRIBUTES, style)
    return prepare(raw, reader, conversation, 512, report, progress=False), report


def test_ids_are_those_that_the_server_reads(tokenizer: Any) -> None:
    (example,), _ = prepared(tokenizer, GOOD)
    served = Conversation(PromptFormat(), tokenizer).encode([Pair(prompt="a b", response="c d")])
    assert list(example.sequences) == served
    assert example.labels == [2.0] * 5


@pytest.mark.parametrize("style", ["chat_template", "steerlm"])
def test_turns_in_a_prompt_string_are_turns(tokenizer: Any, style: Any) -> None:
    (example,), _ = prepared(tokenizer, {**GOOD, "prompt": SEVERAL_TURNS}, style=style)
    conversation = Conversation(PromptFormat(format=style), tokenizer)
    assert list(example.sequences) == conversation.encode([Pair(prompt=MESSAGES, response="c d")])


def test_messages_are_taken_as_they_are(tokenizer: Any) -> None:
    (one, other), _ = prepared(
        tokenizer, {**GOOD, "prompt": TURNS}, {**GOOD, "prompt": SEVERAL_TURNS}
    )
    assert one.sequences == other.sequences


def test_empty_fields_of_messages_change_nothing(tokenizer: Any) -> None:
    turns = [{**turn, "tool_calls": None, "content": [{"text": turn["content"]}]} for turn in TURNS]
    (one, other), _ = prepared(
        tokenizer, {**GOOD, "prompt": TURNS}, {**GOOD, "prompt": turns, "images": []}
    )
    assert one.sequences == other.sequences


def test_a_raw_prompt_is_kept_as_it_is(tokenizer: Any) -> None:
    (example,), _ = prepared(tokenizer, {**GOOD, "prompt": SEVERAL_TURNS}, style="raw")
    conversation = Conversation(PromptFormat(format="raw"), tokenizer)
    pair = Pair(prompt=SEVERAL_TURNS, response="c d")
    assert list(example.sequences) == conversation.encode([pair])


def test_missing_labels_are_masked(tokenizer: Any) -> None:
    row = {"prompt": "a", "response": "b", "helpfulness": 3.5, "correctness": None,
           "coherence": -100, "complexity": math.nan}  # fmt: skip
    (example,), report = prepared(tokenizer, row)
    assert example.labels == [3.5, MASKED, MASKED, MASKED, MASKED]
    assert (report.rows, report.used) == (1, 1)


UNUSABLE: list[tuple[Any, str]] = [
    (None, "bad"),
    ({**GOOD, "prompt": ""}, "no prompt"),
    ({**GOOD, "prompt": None}, "no prompt"),
    ({**GOOD, "prompt": 3}, "prompt and response are not a valid pair"),
    ({**GOOD, "prompt": [{"role": "assistant", "content": "x"}]},
     "prompt and response are not a valid pair"),
    ({**GOOD, "prompt": "\ud800"}, "prompt and response are not a valid pair"),
    ({**GOOD, "tools": [{"name": "f"}]}, f"tools {content.advice('tools')}"),
    ({**GOOD, "prompt": [{"role": "user", "content": "x", "reasoning": "y"}]},
     f"reasoning of a message {content.advice('reasoning')}"),
    ({**GOOD, "prompt": [{"role": "user", "content": [{"image": "x"}]}]},
     "content of a message is not a text: this service scores only text"),
    ({**GOOD, "response": " \n"}, "empty response"),
    ({**GOOD, "response": None}, "empty response"),
    ({**GOOD, "response": "a b " * 400}, "more than 512 tokens"),
    ({**GOOD, "helpfulness": 5}, "helpfulness is not a number from 0 to 4"),
    ({**GOOD, "helpfulness": -1}, "helpfulness is not a number from 0 to 4"),
    ({**GOOD, "verbosity": 10**400}, "verbosity is not a number from 0 to 4"),
    ({**GOOD, "verbosity": math.inf}, "verbosity is not a number from 0 to 4"),
    ({**GOOD, "verbosity": "3"}, "verbosity is not a number from 0 to 4"),
    ({**GOOD, "verbosity": True}, "verbosity is not a number from 0 to 4"),
    ({"prompt": "a", "response": "b"}, "no attribute has a label"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "reason"), UNUSABLE)
def test_a_row_that_cannot_be_used_is_counted_and_harms_no_other(
    tokenizer: Any, row: Any, reason: str
) -> None:
    examples, report = prepared(tokenizer, GOOD, row, GOOD)
    assert [example.place for example in examples] == ["f:1", "f:3"]
    assert (report.rows, report.used) == (3, 2)
    assert dict(report.bad.counts) == {reason: 1}
    assert report.lines() == ["train: 3 rows, 2 used", f"  1 not used: {reason} (first: f:2)"]


def test_comparisons_have_two_sequences(tokenizer: Any) -> None:
    (example,), _ = prepared(tokenizer, COMPARISON, read=preference_rows("chat_template"))
    assert len(example.sequences) == 2
    assert example.labels == [-2.0]
    assert example.length == max(map(len, example.sequences))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**COMPARISON, "preference_strength": 0},
         "preference_strength is 0: neither response is better"),
        ({**COMPARISON, "preference_strength": 4},
         "preference_strength is not a number from -3 to 3"),
        ({"prompt": "a", "response_1": "b", "response_2": "c"},
         "preference_strength is not a number from -3 to 3"),
        ({**COMPARISON, "response_2": ""}, "empty response_2"),
        ({**COMPARISON, "response_1": "a b " * 400}, "more than 512 tokens"),
    ],
)  # fmt: skip
def test_a_comparison_that_cannot_be_used_is_counted(tokenizer: Any, row: Any, reason: str) -> None:
    read = preference_rows("chat_template")
    examples, report = prepared(tokenizer, row, COMPARISON, read=read)
    assert [example.place for example in examples] == ["f:2"]
    assert dict(report.bad.counts) == {reason: 1}
