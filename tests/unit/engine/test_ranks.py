"""Which rank takes a sequence, and whether each answers."""

from __future__ import annotations

import time

import pytest

from fivescore.engine.ranks import LOAD_FACTOR, Rank, Ranks


def entered(ranks: Ranks, prefix: int, tokens: int) -> Rank:
    rank = ranks.of(prefix, tokens)
    rank.enter(tokens)
    return rank


def test_sequences_that_begin_alike_share_a_rank_while_none_is_full() -> None:
    escaped: list[None] = []
    ranks = Ranks(3, 1000, lambda: escaped.append(None))
    taken = {prefix: {entered(ranks, prefix, 10).number for _ in range(5)} for prefix in range(9)}
    assert all(len(numbers) == 1 for numbers in taken.values())
    assert set.union(*taken.values()) == {0, 1, 2}
    assert not escaped


def test_negative_numbers_are_prefixes_too() -> None:
    assert Ranks(3, 100).of(-1, 1).number in range(3)


def test_up_to_a_step_of_tokens_nothing_leaves_its_rank() -> None:
    escaped: list[None] = []
    ranks = Ranks(2, 100, lambda: escaped.append(None))
    assert [entered(ranks, 0, 25).number for _ in range(4)] == [0, 0, 0, 0]
    assert entered(ranks, 0, 25).number == 1
    assert len(escaped) == 1


@pytest.mark.parametrize("count", [2, 3, 8])
def test_no_rank_has_more_than_its_bounded_share(count: int) -> None:
    ranks = Ranks(count)
    for _ in range(500):
        entered(ranks, 0, 7)
    most = LOAD_FACTOR * sum(rank.tokens for rank in ranks.all) / count
    assert max(rank.tokens for rank in ranks.all) <= most + 7


def test_a_sequence_above_every_share_goes_where_the_least_is() -> None:
    ranks = Ranks(2)
    entered(ranks, 0, 1000)
    assert entered(ranks, 0, 5000).number == 1


def test_what_has_left_counts_no_more() -> None:
    ranks = Ranks(2, step_tokens=10)
    for _ in range(20):
        rank = entered(ranks, 1, 10)
        assert rank.number == 1
        rank.leave(10)


def test_a_rank_that_is_silent_shows_beside_one_that_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    ranks = Ranks(2)
    silent, talking = ranks.all
    silent.enter(1)
    for _ in range(5):
        talking.enter(1)
        now += 1
        talking.answered()
        talking.leave(1)
    assert ranks.silent == 5
    silent.leave(1)  # its client gave up
    assert ranks.silent == 0
    silent.enter(1)
    assert ranks.silent == 5
