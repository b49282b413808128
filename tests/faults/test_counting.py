"""The harness itself: what it must not take for right, and what it makes of what it found."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from fivescore.client.errors import Unreachable
from fivescore.errors import EngineError, FivescoreError
from fivescore.types import Score
from tests.faults.bench import SHORT, Bench
from tests.faults.judging import counted, judged
from tests.faults.known import TOLERANCE, Known
from tests.faults.load import Load, quantile
from tests.faults.network import Watched
from tests.faults.report import as_json, line, table
from tests.faults.result import NotRun, Result, Tally, at_least, at_most, only
from tests.faults.scenarios import Finished, Scenario, finish

KNOWN = [
    Known("p", "a", Score({"helpfulness": 1.0}, 2.0, tokens=3)),
    Known("p", "b", Score({"helpfulness": 3.0}, 4.0, tokens=3)),
]
RIGHT = [{"helpfulness": 1.0, "reward": 2.0}, {"helpfulness": 3.0, "reward": 4.0}]
WAIT = {"Retry-After": "1"}


def _answered(*entries: Any) -> Tally:
    return judged(200, {}, json.dumps({"scores": entries}).encode(), KNOWN)


def test_right_is_within_the_tolerance() -> None:
    near = {"helpfulness": 1.0 + 0.9 * TOLERANCE, "reward": 2.0 - 0.9 * TOLERANCE}
    assert _answered(near, RIGHT[1]) == Tally(1, 2, right=2)


@pytest.mark.parametrize(
    "entry",
    [
        {"helpfulness": 1.0 + 2 * TOLERANCE, "reward": 2.0},
        {"helpfulness": 1.0, "reward": 2.0 + 2 * TOLERANCE},
        {"helpfulness": math.nan, "reward": 2.0},
        {"helpfulness": None, "reward": 2.0},
        {"reward": 2.0},
        {},
        RIGHT[1],
    ],
)
def test_another_score_is_wrong(entry: dict[str, Any]) -> None:
    assert _answered(entry, RIGHT[1]) == Tally(1, 2, right=1, wrong=1)


def test_a_pairs_own_error_is_explicit() -> None:
    tally = _answered({"error": {"code": "non_finite"}}, RIGHT[1])
    assert (tally.right, tally.errors) == (1, {"non_finite": 1})


@pytest.mark.parametrize(
    ("status", "headers", "content"),
    [
        (200, {}, b'{"scores": [{"helpfulness": 1.0, "rew'),
        (200, {}, json.dumps({"scores": RIGHT[:1]}).encode()),
        (200, {}, b"{}"),
        (200, {}, b"[]"),
        (500, {}, b"Internal Server Error"),
        (503, {}, b'{"code": "draining"}'),
        (503, {"Retry-After": "0"}, b'{"code": "draining"}'),
        (503, WAIT, b"{}"),
    ],
)
def test_what_is_no_answer_is_lost(status: int, headers: dict[str, str], content: bytes) -> None:
    assert judged(status, headers, content, KNOWN) == Tally(1, 2, lost=2)


def test_a_refusal_that_says_when_to_come_again_is_explicit() -> None:
    tally = judged(503, WAIT, b'{"code": "draining"}', KNOWN)
    assert (tally.errors, tally.lost) == ({"draining": 2}, 0)


def test_what_the_client_gave_up_is_lost() -> None:
    results: list[Score | FivescoreError] = [Unreachable("gone"), EngineError("refused")]
    tally = counted(results, KNOWN)
    assert (tally.lost, tally.errors, tally.right) == (1, {"engine_error": 1}, 0)
    assert counted([KNOWN[1].score, KNOWN[0].score], KNOWN).wrong == 2


@pytest.mark.parametrize("tally", [Tally(lost=1), Tally(wrong=1)])
def test_lost_and_wrong_are_faults(tally: Tally) -> None:
    assert Result("", tally).faults
    assert not Result("", Tally(left=1)).faults


def test_a_bound_that_is_missed_or_not_measured_is_a_fault() -> None:
    assert Result("", bounds=[at_most("x", 2, 1)]).faults == ["x 2 <= 1"]
    assert Result("", bounds=[at_least("x", math.nan, 1), at_most("x", math.nan, 1)]).faults
    assert not Result("", bounds=[at_most("x", 1, 1), at_least("x", 1, 1)]).faults


def test_errors_that_were_not_expected_are_a_fault() -> None:
    tally = judged(503, WAIT, b'{"code": "draining"}', KNOWN)
    assert only(tally, "draining").met
    assert not only(tally, "overloaded").met
    assert not only(tally).met


def test_a_quantile_is_one_of_the_values() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0], 0.99) == 1.0
    assert math.isnan(quantile([], 0.5))
    assert Load(1.0).right_per_second == 0.0


def test_the_line_and_the_table_show_what_was_missed() -> None:
    tally = Tally(1, 4, errors=Counter(draining=2), lost=2)
    scenario = Scenario("4a", "drain", lambda bench: pytest.fail("it is not run here"))
    finished = Finished(scenario, Result("SIGTERM", tally, [at_most("x", 2, 3)], 1.25), 3.0)
    where = {"command": "c", "date": "d", "machine": "m", "versions": "v"}
    assert "2 lost" in line(finished)
    row = "| 4a | drain | SIGTERM | 1 | 4 | 0 | 2 draining | 2 | 0 | 1.2 | **missed: 2 lost** |"
    assert row in table([finished], where)
    (found,) = json.loads(as_json([finished], where))["scenarios"]
    assert (found["faults"], found["tally"]["errors"]) == (["2 lost"], {"draining": 2})
    assert found["bounds"] == [{"what": "x", "value": 2, "sign": "<=", "limit": 3, "met": True}]


def test_a_place_with_two_results_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watched, "twice", 0)
    unused: Any = None
    call = Watched(unused, unused, unused, unused, "", False, tqdm(disable=True))
    call._settle([0, 1], [KNOWN[0].score, KNOWN[1].score])
    assert Watched.twice == 0
    call._settle([1, 2, 2], [KNOWN[1].score] * 3)
    assert Watched.twice == 2


async def test_what_a_machine_cannot_do_has_not_passed(tmp_path: Path) -> None:
    async def run(bench: Bench) -> Result:
        raise NotRun("no network namespaces here")

    finished = await finish(Scenario("11", "net", run), Bench(SHORT, tmp_path))
    assert finished.result.faults == ["NOT RUN: no network namespaces here"]
    where = {"command": "c", "date": "d", "machine": "m", "versions": "v"}
    assert "| **NOT RUN: no network namespaces here** |" in table([finished], where)
