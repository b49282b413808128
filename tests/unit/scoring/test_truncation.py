"""What is left of a pair that is too long: its end, and a BOS."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivescore.scoring.chunks import characters
from fivescore.scoring.truncation import keep_end, shorten
from fivescore.types import Message, Pair

BOS = 1
TEXTS = st.text("abc", max_size=12)
PAIRS = st.one_of(
    st.builds(Pair, prompt=TEXTS, response=TEXTS),
    st.builds(Pair, text=st.text("abc", min_size=1, max_size=24)),
    st.builds(
        lambda contents, response: Pair(prompt=talk(contents), response=response),
        st.lists(TEXTS, min_size=1, max_size=4),
        TEXTS,
    ),
)


def talk(contents: list[str]) -> list[Message]:
    """Messages that end with the user's."""
    roles = ("user", "assistant") * len(contents)
    return [
        Message(role=role, content=content)
        for role, content in zip(roles[len(contents) - 1 :: -1], contents, strict=True)
    ]


def whole(pair: Pair) -> str:
    """All of a pair's characters, in their order."""
    if pair.text is not None:
        return pair.text
    prompt = pair.prompt or ""
    turns = [prompt] if isinstance(prompt, str) else [turn.content for turn in prompt]
    return "".join([*turns, pair.answer.content])


@pytest.mark.parametrize(
    ("ids", "limit", "bos", "kept"),
    [
        ([1, 2, 3, 4], 3, BOS, [1, 3, 4]),
        ([1, 2, 3, 4], 2, BOS, [1, 4]),
        ([1, 2, 3, 4], 1, BOS, [4]),  # a BOS alone would say nothing
        ([2, 1, 3, 4], 2, BOS, [3, 4]),
        ([2, 3, 4, 1], 2, BOS, [4, 1]),
        ([1, 2, 3, 4], 3, None, [2, 3, 4]),
        ([1, 1, 1], 2, BOS, [1, 1]),
    ],
)
def test_the_last_ids_are_kept_and_a_bos_before_them(
    ids: list[int], limit: int, bos: int | None, kept: list[int]
) -> None:
    before = list(ids)
    assert keep_end(ids, limit, bos) == kept
    assert ids == before


@given(st.lists(st.integers(0, 3), min_size=2, max_size=30), st.data())
def test_what_is_kept_is_the_end_and_fills_the_limit(ids: list[int], data: st.DataObject) -> None:
    limit = data.draw(st.integers(1, len(ids) - 1))
    kept = keep_end(ids, limit, BOS)
    assert len(kept) == limit
    has_bos = ids[0] == BOS and limit > 1
    end = kept[1:] if has_bos else kept
    assert end == ids[len(ids) - len(end) :]
    if has_bos:
        assert kept[0] == BOS


@given(PAIRS, st.data())
def test_just_the_first_characters_go_and_the_form_stays(pair: Pair, data: st.DataObject) -> None:
    length = characters(pair)
    excess = data.draw(st.integers(1, length - 1)) if length > 1 else 0
    left = shorten(pair, excess)
    assert whole(left) == whole(pair)[excess:]
    assert characters(left) == length - excess
    assert (left.text is None, left.prompt is None) == (pair.text is None, pair.prompt is None)
    if isinstance(pair.prompt, list):
        assert isinstance(left.prompt, list)
        assert [turn.role for turn in left.prompt] == [turn.role for turn in pair.prompt]


def test_the_prompt_goes_before_the_response() -> None:
    pair = Pair(prompt="abc", response="def")
    assert shorten(pair, 2) == Pair(prompt="c", response="def")
    assert shorten(pair, 3) == Pair(prompt="", response="def")
    assert shorten(pair, 5) == Pair(prompt="", response="f")


def test_older_turns_go_before_newer_ones() -> None:
    pair = Pair(prompt=talk(["ab", "cd", "ef"]), response="gh")
    assert shorten(pair, 3) == Pair(prompt=talk(["", "d", "ef"]), response="gh")
    assert shorten(pair, 7) == Pair(prompt=talk(["", "", ""]), response="h")
    assert pair == Pair(prompt=talk(["ab", "cd", "ef"]), response="gh")


def test_a_call_that_is_cut_has_no_arguments_and_stays_a_call() -> None:
    def asking(content: str, arguments: str, user: str = "ef") -> Pair:
        turn = calling(content, arguments)
        return Pair.model_validate(
            {"prompt": [turn, {"role": "user", "content": user}], "response": "gh"}
        )

    pair = asking("ab", '{"x": "yz"}')
    assert shorten(pair, 1) == asking("b", '{"x": "yz"}')
    assert shorten(pair, 3) == asking("", "{}")
    assert shorten(pair, characters(pair) - 2) == asking("", "{}", "")


def test_the_calls_of_a_response_stay_whole() -> None:
    pair = Pair.model_validate({"prompt": "ab", "response": calling("cd", '{"x": "yz"}')})
    kept = Pair.model_validate({"prompt": "", "response": calling("d", '{"x": "yz"}')})
    assert shorten(pair, 3) == kept


def calling(content: str, arguments: str) -> dict[str, Any]:
    """An assistant's message with one call."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"role": "assistant", "content": content, "tool_calls": [call]}
