"""A request's pairs in chunks, pairs of one prompt next to each other."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivescore.errors import BodyTooLarge, InvalidPair
from fivescore.scoring.chunks import (
    CHUNK_CHARACTERS,
    CHUNK_PAIRS,
    MOST_CHARACTERS,
    PAIR_CHARACTERS,
    TURN_CHARACTERS,
    Placed,
    check_repeated,
    chunks,
    placed,
)
from fivescore.types import Message, Pair

PAIRS = st.lists(
    st.builds(
        Pair,
        prompt=st.sampled_from(("", "a", "b", "c", [Message(role="user", content="a")])),
        response=st.sampled_from(("", "x", "y")),
    )
    | st.builds(Pair, token_ids=st.just([1, 2]))
    | st.builds(Pair, text=st.sampled_from(("a", "b"))),
    max_size=200,
)


def steps(work: Coroutine[Any, Any, Any]) -> tuple[Any, int]:
    """What a coroutine that only gives turns returns, and how many it gives."""
    turns = 0
    try:
        while True:
            work.send(None)
            turns += 1
    except StopIteration as end:
        return end.value, turns


def found(pairs: Sequence[Pair | InvalidPair]) -> list[Placed]:
    listed: list[Placed] = steps(placed(pairs))[0]
    return listed


def prompt(pair: Pair) -> object:
    return tuple(pair.prompt) if isinstance(pair.prompt, list) else pair.prompt


@given(PAIRS)
def test_every_pair_is_in_one_chunk_and_chunks_have_a_most(pairs: list[Pair]) -> None:
    cut = list(chunks(found(pairs)))
    assert sorted(place for chunk in cut for place, *_ in chunk) == list(range(len(pairs)))
    assert all(pair is pairs[place] for chunk in cut for place, pair, *_ in chunk)
    assert all(1 <= len(chunk) <= CHUNK_PAIRS for chunk in cut)


@given(PAIRS)
def test_pairs_of_one_prompt_stand_next_to_each_other_in_their_order(pairs: list[Pair]) -> None:
    flat = [item for chunk in chunks(found(pairs)) for item in chunk]
    for one in {prompt(pair) for pair in pairs if pair.prompt}:
        where = [index for index, (_, pair, *_) in enumerate(flat) if prompt(pair) == one]
        assert where == list(range(where[0], where[0] + len(where)))
        places = [flat[index][0] for index in where]
        assert places == sorted(places)


@given(PAIRS)
def test_prompts_keep_the_order_in_which_they_came_first(pairs: list[Pair]) -> None:
    came = list(dict.fromkeys(prompt(pair) for pair in pairs if pair.prompt))
    flat = [pair for chunk in chunks(found(pairs)) for _, pair, *_ in chunk]
    assert list(dict.fromkeys(prompt(pair) for pair in flat if pair.prompt)) == came


def test_chunks_start_small_and_double_up_to_the_most() -> None:
    pairs = [Pair(prompt="a", response="x")] * (8 + 16 + 32 + 2 * CHUNK_PAIRS + 1)
    sizes = [len(chunk) for chunk in chunks(found(pairs))]
    assert sizes == [8, 16, 32, CHUNK_PAIRS, CHUNK_PAIRS, 1]


def test_long_texts_make_short_chunks_and_one_longer_than_all_stands_alone() -> None:
    half = Pair(prompt="a" * (CHUNK_CHARACTERS // 2), response="")
    whole = Pair(prompt="b", response="b" * 2 * CHUNK_CHARACTERS)
    cut = chunks(found([half, half, half, whole, half]))
    assert [[place for place, *_ in chunk] for chunk in cut] == [[0, 1], [2, 4], [3]]


def test_the_length_of_a_pair_is_that_of_all_its_texts() -> None:
    turns = [Message(role="system", content="ab"), Message(role="user", content="c")]
    pairs = (
        Pair(prompt="abc", response="de"),
        Pair(prompt=turns, response="de"),
        Pair(text="abcd"),
        Pair(token_ids=[1, 2, 3]),
    )
    assert [one.characters for one in found(pairs)] == [5, 5, 4, 0]


def test_empty_turns_and_token_ids_make_a_chunk_full_too() -> None:
    turns = [Message(role="user", content="")] * (CHUNK_CHARACTERS // TURN_CHARACTERS)
    ids = Pair(token_ids=[1] * CHUNK_CHARACTERS)
    cut = chunks(found([Pair(prompt=turns, response=""), ids, Pair(text="a")]))
    assert [[place for place, *_ in chunk] for chunk in cut] == [[0], [1], [2]]


@pytest.mark.parametrize(("characters", "pairs"), [(MOST_CHARACTERS // 4, 4), (10**9, 1), (9, 0)])
def test_a_text_of_all_pairs_may_become_as_long_as_the_limit(characters: int, pairs: int) -> None:
    check_repeated("query", characters, pairs)
    with pytest.raises(BodyTooLarge, match=r"^query: .* send at most 4 pairs") as refused:
        check_repeated("query", MOST_CHARACTERS // 4, 5)
    assert refused.value.facts == {"limit": MOST_CHARACTERS}


def test_malformed_pairs_are_left_out_and_others_keep_their_places() -> None:
    bad = InvalidPair("no response")
    pairs: list[Pair | InvalidPair] = [bad, Pair(text="a"), bad, Pair(text="b")]
    assert [(place, pair.text) for place, pair, *_ in found(pairs)] == [(1, "a"), (3, "b")]


@pytest.mark.parametrize(
    "pair",
    [
        Pair(prompt=[Message(role="user", content="a")] * 1000, response="b"),
        Pair(prompt="a" * CHUNK_CHARACTERS, response="b"),
        Pair(prompt="a", response="b"),
        Pair(token_ids=[1] * CHUNK_CHARACTERS),
    ],
    ids=["turns", "characters", "pairs", "token ids"],
)
def test_the_event_loop_has_a_turn_after_a_bounded_number_of_pairs(pair: Pair) -> None:
    size = PAIR_CHARACTERS + found([pair])[0].size
    pairs = max(4, 4 * CHUNK_CHARACTERS // size)
    listed, turns = steps(placed([pair] * pairs))
    assert len(listed) == pairs
    assert turns >= pairs * size // (CHUNK_CHARACTERS + size)


def test_long_prompts_of_one_length_are_known_by_their_ends() -> None:
    middle = "m" * CHUNK_CHARACTERS
    prompts = [f"a{middle}a", f"b{middle}a", f"a{middle}b", f"a{middle}a"]
    pairs = [Pair(prompt=prompt, response="") for prompt in prompts]
    assert [one.first for one in found(pairs)] == [0, 1, 2, 0]
