"""The simulator of fleets."""

from __future__ import annotations

import numpy as np
import pytest

from fivescore.settings import DEMO
from loadtest.fleet import calibration
from loadtest.fleet.calibration import Point, fit
from loadtest.fleet.engine import Engine, Sequence, ServiceTimes
from loadtest.fleet.reality import common
from loadtest.fleet.routing import ROUTERS, Bounded, ByHash, ByLoad, Modulo, Router
from loadtest.fleet.simulation import Fleet, Loss
from loadtest.fleet.workload import Shape, at_once, poisson
from loadtest.model import Measured
from loadtest.texts import endless

TIMES = ServiceTimes(0.01, 0.0003, 40_000)
LOSS = Loss(engine=2, at=2.0, back=5.0)
ALL = [*ROUTERS.values(), Modulo]


@pytest.mark.parametrize("router", ALL)
@pytest.mark.parametrize("losses", [[], [LOSS]])
def test_every_sequence_is_answered_exactly_once(router: type[Router], losses: list[Loss]) -> None:
    arrivals = poisson(Shape(), 900, 6, spread=0.5)
    outcome = Fleet(TIMES, router(5)).run(arrivals, losses)
    assert outcome.answers == len(arrivals)
    assert not np.isnan(outcome.answered).any()
    assert (outcome.latencies() > 0).all()
    assert bool(outcome.resent) == bool(losses)


@pytest.mark.parametrize("router", ALL)
def test_routers_know_of_nothing_outstanding_once_all_is_answered(router: type[Router]) -> None:
    used = router(5)
    Fleet(TIMES, used).run(poisson(Shape(), 900, 6), [LOSS])
    assert used.outstanding.tolist() == [0] * 5
    assert used.up.all()


def test_one_engine_has_its_analytic_throughput() -> None:
    arrivals = at_once(Shape())
    outcome = Fleet(TIMES, ByHash(1)).run(arrivals)
    assert outcome.computed == arrivals.least_tokens(TIMES)
    steps = np.ceil(outcome.computed / TIMES.step_tokens)
    expected = TIMES.seconds(steps, len(arrivals), outcome.computed)
    assert outcome.seconds == pytest.approx(expected)
    assert outcome.seconds == pytest.approx(arrivals.ideal_seconds(TIMES, 1), rel=0.02)


def test_tokens_are_computed_or_found_in_a_cache() -> None:
    arrivals = at_once(Shape())
    outcome = Fleet(TIMES, ByLoad(4)).run(arrivals)
    assert outcome.computed + outcome.hit == arrivals.tokens


def test_hash_keeps_a_prompt_together_and_load_does_not() -> None:
    arrivals = at_once(Shape())
    assert Fleet(TIMES, ByHash(8)).run(arrivals).moved == 0
    assert Fleet(TIMES, ByLoad(8)).run(arrivals).moved == 64


def test_a_lost_engine_moves_only_its_own_prompts_and_modulo_nearly_all() -> None:
    sequences = [Sequence(n, n, 300, 70) for n in range(4000)]
    moved = {}
    for make in (ByHash, Modulo):
        router = make(10)
        before = [router.choose(one) for one in sequences]
        router.lose(3)
        after = [router.choose(one) for one in sequences]
        assert 3 not in after
        moved[make] = [b for b, a in zip(before, after, strict=True) if a != b]
    assert set(moved[ByHash]) == {3}
    assert len(moved[ByHash]) / 4000 == pytest.approx(0.1, abs=0.02)
    assert len(moved[Modulo]) / 4000 == pytest.approx(0.9, abs=0.02)


def test_hashes_spread_prompts_evenly() -> None:
    router = ByHash(7)
    counts = np.bincount([router.home(prompt) for prompt in range(70_000)], minlength=7)
    assert counts == pytest.approx([10_000] * 7, rel=0.05)


def test_the_bound_holds_where_the_hash_would_exceed_it() -> None:
    arrivals = at_once(Shape(prompts=50 * 20))
    loads = {}
    for name, router in {"hash": ByHash(50), "bounded": Bounded(50, 1.1)}.items():
        for number, rest in enumerate(zip(arrivals.prompt, arrivals.shared, arrivals.own,
                                          strict=True)):  # fmt: skip
            router.send(Sequence(number, *map(int, rest)))
        loads[name] = router.outstanding.max() / router.outstanding.mean()
    assert loads["hash"] > 1.3
    assert loads["bounded"] <= 1.1


def test_a_prompt_leaves_a_full_cache_and_blocks_are_whole() -> None:
    engine = Engine(ServiceTimes(0, 0, 1, cache_tokens=1000))
    for number, prompt in enumerate([0, 0, 1, 2, 0]):
        engine.queue.append(Sequence(number, prompt, 310, 70))
        engine.step()
        engine.finish()
    assert engine.hit == 304  # once; then two other prompts of 380 tokens had filled the cache


def test_a_long_sequence_takes_several_steps_and_a_later_step_attends_to_more() -> None:
    engine = Engine(ServiceTimes(0, 0, 1e12, per_attended=1.0, step_tokens=100))
    engine.queue.append(Sequence(0, 0, 150, 50))
    assert engine.step() == pytest.approx(100 * 50)
    assert engine.finish() == []
    assert engine.step() == pytest.approx(100 * 150)
    assert len(engine.finish()) == 1


def test_a_process_in_front_lets_sequences_through_one_by_one() -> None:
    arrivals = at_once(Shape(prompts=2, responses=2)).through(0.5)
    assert arrivals.at == pytest.approx([0.5, 1.0, 1.5, 2.0])


def test_arrivals_have_their_rate_and_repeat() -> None:
    first, second = poisson(Shape(), 1000, 300), poisson(Shape(), 1000, 300)
    assert len(first) == pytest.approx(300_000, rel=0.1)
    assert (first.at == second.at).all()
    assert (np.diff(first.at) >= 0).all()


def test_the_fit_finds_the_constants() -> None:
    made = ServiceTimes(0.02, 0.001, 50_000, 1e-8)
    work = [(10, 100, 50_000, 1e7), (1, 1, 300, 4e4), (20, 900, 60_000, 2e6), (8, 9, 6e4, 9e7)]
    points = [Point("", made.seconds(*one), *one) for one in work]
    found = fit(points)
    assert found.overhead == pytest.approx(0.02)
    assert found.per_attended == pytest.approx(1e-8)


def test_the_grouped_tokens_are_those_of_the_measured_texts() -> None:
    model = Measured(str(DEMO))
    ids = model.ids(endless(model, 256).groups(64, 8, 300))
    tokens, computed = sum(map(len, ids)), 0
    shared = []
    for group in (ids[i : i + 8] for i in range(0, len(ids), 8)):
        shared.append(common(group))
        computed += sum(map(len, group)) - 7 * TIMES.hit(shared[-1])
    assert computed / 512 == pytest.approx(calibration.GROUPED_TOKENS, rel=0.01)
    assert np.mean(shared) == pytest.approx(Shape().shared, rel=0.01)
    assert tokens / 512 - np.mean(shared) == pytest.approx(Shape().own, rel=0.01)


def test_the_measured_loads_of_an_h100_are_explained() -> None:
    for case in calibration.MODELS:
        for row in calibration.compared(case):
            assert row["fitted, s"] == pytest.approx(row["measured, s"], rel=0.05), row
