"""A request's pairs in chunks, pairs of one prompt next to each other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fivescore.errors import InvalidPair
from fivescore.scoring.chunks import CHUNK_CHARACTERS, CHUNK_PAIRS, chunks, placed
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


def prompt(pair: Pair) -> object:
    return tuple(pair.prompt) if isinstance(pair.prompt, list) else pair.prompt


@given(PAIRS)
def test_every_pair_is_in_one_chunk_and_chunks_have_a_most(pairs: list[Pair]) -> None:
    cut = list(chunks(placed(pairs)))
    assert sorted(place for chunk in cut for place, _, _ in chunk) == list(range(len(pairs)))
    assert all(pair is pairs[place] for chunk in cut for place, pair, _ in chunk)
    assert all(1 <= len(chunk) <= CHUNK_PAIRS for chunk in cut)


@given(PAIRS)
def test_pairs_of_one_prompt_stand_next_to_each_other_in_their_order(pairs: list[Pair]) -> None:
    flat = [item for chunk in chunks(placed(pairs)) for item in chunk]
    for one in {prompt(pair) for pair in pairs if pair.prompt}:
        where = [index for index, (_, pair, _) in enumerate(flat) if prompt(pair) == one]
        assert where == list(range(where[0], where[0] + len(where)))
        places = [flat[index][0] for index in where]
        assert places == sorted(places)


@given(PAIRS)
def test_prompts_keep_the_order_in_which_they_came_first(pairs: list[Pair]) -> None:
    came = list(dict.fromkeys(prompt(pair) for pair in pairs if pair.prompt))
    flat = [pair for chunk in chunks(placed(pairs)) for _, pair, _ in chunk]
    assert list(dict.fromkeys(prompt(pair) for pair in flat if pair.prompt)) == came


def test_chunks_start_small_and_double_up_to_the_most() -> None:
    pairs = [Pair(prompt="a", response="x")] * (8 + 16 + 32 + 2 * CHUNK_PAIRS + 1)
    sizes = [len(chunk) for chunk in chunks(placed(pairs))]
    assert sizes == [8, 16, 32, CHUNK_PAIRS, CHUNK_PAIRS, 1]


def test_long_texts_make_short_chunks_and_one_longer_than_all_stands_alone() -> None:
    half = Pair(prompt="a" * (CHUNK_CHARACTERS // 2), response="")
    whole = Pair(prompt="b", response="b" * 2 * CHUNK_CHARACTERS)
    cut = chunks(placed([half, half, half, whole, half]))
    assert [[place for place, _, _ in chunk] for chunk in cut] == [[0, 1], [2, 4], [3]]


def test_the_length_of_a_pair_is_that_of_all_its_texts() -> None:
    turns = [Message(role="system", content="ab"), Message(role="user", content="c")]
    pairs = (
        Pair(prompt="abc", response="de"),
        Pair(prompt=turns, response="de"),
        Pair(text="abcd"),
        Pair(token_ids=[1, 2, 3]),
    )
    assert [one.characters for one in placed(pairs)] == [5, 5, 4, 0]


def test_malformed_pairs_are_left_out_and_others_keep_their_places() -> None:
    bad = InvalidPair("no response")
    pairs: list[Pair | InvalidPair] = [bad, Pair(text="a"), bad, Pair(text="b")]
    assert [(place, pair.text) for place, pair, _ in placed(pairs)] == [(1, "a"), (3, "b")]
