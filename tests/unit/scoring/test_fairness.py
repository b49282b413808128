"""Large and small requests share the engine by tokens, and none waits for ever."""

from __future__ import annotations

import heapq

from fivescore.scoring.fairness import CLASS_TAGS, PRIORITIES, Fairness


class Engine:
    """Serves what waits by priority, then by arrival, as vLLM's priority scheduling does."""

    def __init__(self) -> None:
        self.fairness = Fairness()
        self.waiting: list[tuple[int, int, int, str]] = []
        self.arrived = 0

    def ask(self, name: str, sequences: int, tokens: int = 100, priority: int = 0) -> None:
        share = self.fairness.share(priority)
        for _ in range(sequences):
            tag, rank = share.next(tokens)
            self.arrived += 1
            heapq.heappush(self.waiting, (rank, self.arrived, tag, name))

    def serve(self, sequences: int = 1) -> list[str]:
        names = []
        for _ in range(min(sequences, len(self.waiting))):
            _, _, tag, name = heapq.heappop(self.waiting)
            self.fairness.served(tag)
            names.append(name)
        return names


def test_a_small_request_does_not_wait_for_a_large_one() -> None:
    engine = Engine()
    engine.ask("job", 50_000)
    engine.serve(20_000)
    engine.ask("single", 1)
    assert "single" in engine.serve(2)


def test_a_large_request_goes_on_however_many_small_ones_come() -> None:
    engine = Engine()
    engine.ask("job", 100)
    served = []
    for _ in range(200):
        engine.ask("single", 1)
        served += engine.serve(2)
    assert served.count("job") == 100


def test_two_large_requests_share_by_tokens_not_by_sequences() -> None:
    engine = Engine()
    engine.ask("long", 1000, tokens=400)
    engine.ask("short", 1000, tokens=100)
    served = engine.serve(1000)
    assert 3 < served.count("short") / served.count("long") < 5


def test_a_request_that_comes_while_nothing_waits_owes_nothing_for_the_past() -> None:
    engine = Engine()
    engine.ask("first", 1000)
    engine.serve(1000)
    engine.ask("second", 10)
    engine.ask("third", 10)
    assert set(engine.serve(4)) == {"second", "third"}


def test_one_request_is_served_in_its_own_order() -> None:
    share = Fairness().share(0)
    ranks = [share.next(7)[1] for _ in range(5)]
    assert ranks == sorted(set(ranks))


def test_a_lower_priority_goes_first_whatever_waits() -> None:
    engine = Engine()
    engine.ask("job", 1000)
    engine.serve(500)
    engine.ask("patient", 1, priority=1)
    engine.ask("urgent", 3, priority=-1)
    assert engine.serve(3) == ["urgent"] * 3
    assert "patient" not in engine.serve(500)
    assert engine.serve(1) == ["patient"]


def test_every_rank_fits_the_engines_64_bits() -> None:
    fairness = Fairness()
    fairness.served(CLASS_TAGS - 1)
    for priority in PRIORITIES:
        _, rank = fairness.share(priority).next(1)
        assert -(2**63) <= rank < 2**63


def test_answers_out_of_order_do_not_turn_the_time_back() -> None:
    fairness = Fairness()
    fairness.served(200)
    fairness.served(100)
    assert fairness.share(0).priority == 200
