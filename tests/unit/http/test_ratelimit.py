"""Pairs a second of each key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivescore.errors import RateLimited
from fivescore.http.ratelimit import BURST_SECONDS, RateLimit

ONE, OTHER = b"one", b"other"


class Clock:
    """Time as the test says; not near 0, where a mistake in the first bucket would hide."""

    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limit(clock: Clock, rate: float | None = 10.0) -> RateLimit:
    return RateLimit(rate, clock)


def refused(rate: RateLimit, pairs: int = 1, holder: bytes | None = ONE) -> int:
    """Seconds after which to come again."""
    with pytest.raises(RateLimited) as caught:
        rate.take(holder, pairs)
    return caught.value.retry_after


def test_a_key_saves_up_a_minute_of_its_rate_and_no_more(clock: Clock) -> None:
    rate = limit(clock, 8.0)  # an eighth of a second adds up exactly
    clock.now += 1e5
    for _ in range(int(8 * BURST_SECONDS)):
        rate.take(ONE, 1)
    rate.take(ONE, 1)  # the bucket is even, not overdrawn
    assert refused(rate) == 1


def test_what_is_overdrawn_is_waited_for_to_the_second(clock: Clock) -> None:
    rate = limit(clock)
    rate.take(ONE, 600 + 255)
    assert refused(rate) == 26
    clock.now += 25.4
    assert refused(rate) == 1
    clock.now += 0.1
    rate.take(ONE, 1)


def test_who_comes_when_told_is_let_in(clock: Clock) -> None:
    rate = limit(clock, 0.7)
    rate.take(ONE, 42)
    for pairs in (1, 13, 999, 10_000, 3):
        rate.take(ONE, pairs)
        clock.now += refused(rate)


def test_a_request_larger_than_the_bucket_is_served_and_paid_for(clock: Clock) -> None:
    rate = limit(clock)
    rate.take(ONE, 100_000)
    assert refused(rate, 1) == refused(rate, 100_000) == 100_000 / 10 - BURST_SECONDS
    clock.now += 100_000 / 10 - BURST_SECONDS
    rate.take(ONE, 100_000)


def test_a_large_request_is_not_passed_over_for_small_ones(clock: Clock) -> None:
    rate = limit(clock)
    rate.take(ONE, 700)
    clock.now += 10  # the bucket is even: a request of any size may come
    rate.take(ONE, 5000)


def test_each_key_has_its_own_bucket_and_who_has_none_share_one(clock: Clock) -> None:
    rate = limit(clock)
    for holder in (ONE, OTHER, None):
        rate.take(holder, 601)
    for holder in (ONE, OTHER, None):
        assert refused(rate, holder=holder) == 1


def test_a_refused_request_and_no_pairs_cost_nothing(clock: Clock) -> None:
    rate = limit(clock)
    rate.take(ONE, 610)
    for _ in range(100):
        assert refused(rate, 1000) == 1
        rate.take(ONE, 0)  # let in, though others are not
    clock.now += 1
    rate.take(ONE, 1)


def test_what_was_not_served_is_given_back(clock: Clock) -> None:
    rate = limit(clock)
    rate.take(ONE, 5000)
    rate.give_back(ONE, 5000)
    rate.take(ONE, 600)
    rate.take(ONE, 1)
    assert refused(rate) == 1
    clock.now += 1e4
    rate.take(OTHER, 1)  # by now ONE's bucket is forgotten
    rate.give_back(ONE, 5000)
    rate.take(ONE, 601)
    assert refused(rate) == 1


def test_without_a_rate_nothing_is_limited(clock: Clock) -> None:
    rate = limit(clock, None)
    for _ in range(3):
        rate.take(ONE, 10**9)
        rate.give_back(ONE, 1)


def test_keys_that_are_gone_take_no_room(clock: Clock) -> None:
    rate = limit(clock)
    for number in range(1000):
        rate.take(b"%d" % number, 10)
        clock.now += 1
    assert len(rate._paid_until) <= 2


@given(
    st.floats(0.01, 1e4),
    st.lists(st.tuples(st.floats(0, 1000), st.integers(1, 10_000)), max_size=60),
)
def test_nobody_gets_more_than_the_rate_the_burst_and_one_request(
    per_second: float, requests: list[tuple[float, int]]
) -> None:
    clock = Clock()
    rate, began, taken = RateLimit(per_second, clock), clock.now, 0
    for waited, pairs in requests:
        clock.now += waited
        due = per_second * (clock.now - began + BURST_SECONDS)
        try:
            rate.take(ONE, pairs)
        except RateLimited:
            continue
        assert taken <= due * (1 + 1e-9)  # all before this request
        taken += pairs
