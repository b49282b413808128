"""What the hand-made corpus takes for an answer; the faults of ``make test`` send it to vLLM."""

from __future__ import annotations

from dataclasses import asdict

import httpx
import pytest

from tests.faults.bad_input.corpus import Case
from tests.faults.bad_input.sending import Tally, judge

CASE = Case("case", "/score", b"", "prompt")
PROBLEM = {"code": "invalid_pair", "detail": "prompt: no", "status": 422, "title": "No"}
TYPE = {"Content-Type": "application/problem+json"}
REFUSED = Case("case", "/score", b"", refused=True)


@pytest.mark.parametrize(
    ("case", "response", "kind"),
    [
        (CASE, httpx.Response(200, json={"reward": 1.0}), "right"),
        (CASE, httpx.Response(200, content=b'{"reward": NaN}'), "lost"),
        (CASE, httpx.Response(200, content=b""), "lost"),
        (REFUSED, httpx.Response(200, json={"reward": 1.0}), "wrong"),
        (CASE, httpx.Response(500, json=PROBLEM, headers=TYPE), "lost"),
        (CASE, httpx.Response(503, json=PROBLEM, headers=TYPE), "lost"),
        (CASE, httpx.Response(422, json=PROBLEM), "lost"),
        (CASE, httpx.Response(422, json={"detail": "prompt"}, headers=TYPE), "lost"),
        (CASE, httpx.Response(422, json={**PROBLEM, "detail": "x"}, headers=TYPE), "lost"),
        (CASE, httpx.Response(422, json={**PROBLEM, "errors": "x" * 2**18}, headers=TYPE), "lost"),
        (CASE, httpx.Response(422, json=PROBLEM, headers=TYPE), "errors"),
    ],
)
def test_what_counts_as_an_answer(case: Case, response: httpx.Response, kind: str) -> None:
    tally = Tally()
    judge(case, response, tally)
    counts = asdict(tally)
    assert counts.pop(kind)
    assert not any(counts[other] for other in ("right", "lost", "wrong", "errors") if other != kind)
