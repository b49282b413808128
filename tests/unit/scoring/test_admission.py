"""Room in flight: the limit, the exception to it, and when to retry."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivescore.errors import Overloaded
from fivescore.scoring.admission import RETRY_SECONDS, Admission
from tests.unit.engines import DEMO_INFO


def refusal(admission: Admission, pairs: int = 1) -> Overloaded:
    with pytest.raises(Overloaded) as caught, admission.admit(pairs):
        pass
    return caught.value


def test_what_fits_is_admitted_and_counted_while_it_runs() -> None:
    admission = Admission(5, 10**6)
    with admission.admit(2), admission.admit(3):
        assert admission.inflight == 5
    assert admission.inflight == 0


def test_what_would_pass_the_limit_is_refused_with_the_numbers() -> None:
    admission = Admission(5, 10**6)
    with admission.admit(3):
        error = refusal(admission, 3)
        assert admission.inflight == 3
    assert (error.reason, error.facts) == ("pairs", {"limit": 5})
    assert "3 pairs are in flight" in error.detail
    assert "max_inflight_pairs" in error.detail


def test_room_comes_back_when_the_work_fails() -> None:
    admission = Admission(1, 100)

    def work() -> None:
        with admission.admit(1) as admitted:
            admitted.expect(50)
            admitted.add_tokens(100)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert (admission.inflight, admission.tokens, admission.expected) == (0, 0, 0)
    assert admission.idle.is_set()


def test_a_request_larger_than_a_limit_is_admitted_when_nothing_else_is_in_flight() -> None:
    admission = Admission(2, 100)
    with admission.admit(100, 10**6):
        assert refusal(admission).facts == {"limit": 2}
    with admission.admit(1):
        refusal(admission, 100)


@pytest.mark.parametrize("pairs", [1, 10_000])
@pytest.mark.parametrize("known", [False, True], ids=["waiting", "tokenised"])
def test_one_request_alone_never_keeps_others_out(pairs: int, known: bool) -> None:
    admission = Admission(256, 8000)
    with admission.admit(pairs, 0 if known else 10**9) as huge, ExitStack() as stack:
        if known:
            huge.add_tokens(10**9)
        for _ in range(32):
            stack.enter_context(admission.admit(1, 31))
        assert refusal(admission, 10_000).reason == "pairs"
    assert (admission.inflight, admission.tokens, admission.expected) == (0, 0, 0)
    with admission.admit(256, 8000):
        pass


@pytest.mark.parametrize(
    ("drained", "waiting", "seconds"),
    [(0, 1, RETRY_SECONDS[0]), (10**6, 1, RETRY_SECONDS[0]), (1, 10**6, RETRY_SECONDS[1])],
)
def test_retry_after_follows_what_waits_and_how_fast_it_drains(
    drained: int, waiting: int, seconds: int
) -> None:
    admission = Admission(1, 10**6)
    if drained:
        with admission.admit(drained):
            pass
    with admission.admit(waiting):
        error = refusal(admission)
    assert error.retry_after == seconds
    assert f"retry after {seconds} seconds" in error.detail


@given(drained=st.lists(st.integers(1, 10_000), max_size=5), waiting=st.integers(1, 10_000))
def test_retry_after_is_a_whole_number_in_its_bounds(drained: list[int], waiting: int) -> None:
    admission = Admission(1, 10**6)
    with ExitStack() as stack:
        for pairs in drained:
            with admission.admit(pairs):
                pass
        stack.enter_context(admission.admit(waiting))
        retry_after = refusal(admission).retry_after
    assert isinstance(retry_after, int)
    assert RETRY_SECONDS[0] <= retry_after <= RETRY_SECONDS[1]


def test_limits_that_were_not_given_follow_the_engine() -> None:
    info = dataclasses.replace(DEMO_INFO, step_sequences=4, step_tokens=100)
    derived, given = Admission(), Admission(7, 9)
    derived.fit(info)
    given.fit(info)
    assert (derived.limit, derived.token_limit) == (2048, 3_276_800)
    assert (given.limit, given.token_limit) == (7, 9)


def test_tokens_are_counted_as_they_become_known_and_leave_with_their_request() -> None:
    admission = Admission(5, 100)
    with admission.admit(1) as one, admission.admit(1) as other:
        one.add_tokens(30)
        one.add_tokens(12)
        other.add_tokens(7)
        assert (admission.tokens, one.tokens, other.tokens) == (49, 42, 7)
    assert admission.tokens == 0


def test_from_the_limit_of_tokens_on_requests_are_refused_with_the_numbers() -> None:
    admission = Admission(5, 100)
    with admission.admit(1) as admitted, admission.admit(1) as other:
        admitted.add_tokens(88)
        other.add_tokens(11)
        with admission.admit(1):
            pass
        other.add_tokens(1)
        error = refusal(admission)
        assert error.reason == "tokens"
        assert error.facts == {"limit": 100}
        assert "100 tokens are in flight" in error.detail
        assert "max_inflight_tokens" in error.detail
    with admission.admit(1):
        pass


def test_texts_count_by_estimate_until_they_are_tokenised() -> None:
    admission = Admission(100, 10)
    with admission.admit(2, 6) as admitted, admission.admit(1, 4):
        assert refusal(admission).reason == "tokens"
        assert admission.tokens == 0
        admitted.add_tokens(3, expected=5)
        assert (admission.tokens, admission.expected) == (3, 5)
        with admission.admit(1, 2):
            pass
    assert (admission.tokens, admission.expected) == (0, 0)
