"""The hand-made corpus against a server with the fake engine; ``make faults`` has the real one."""

from __future__ import annotations

import json
import os

import httpx
import pytest

from tests.faults.bad_input.corpus import Case, cases
from tests.faults.bad_input.sending import Tally, judge, send_all
from tests.integration.process import server

LONG_FORM = "TEST_LONG_FORM"
"""Set this variable, as 1, for every case and the longest texts."""


@pytest.mark.timeout(1800)
async def test_no_body_breaks_the_service_or_a_neighbour() -> None:
    with server() as process:
        async with httpx.AsyncClient(base_url=process.ready().url) as http:
            tally = await send_all(http, cases(bool(os.environ.get(LONG_FORM))))
        assert "Traceback" not in process.log
        assert "internal_error" not in process.log
    assert not tally.notes, "\n".join(tally.notes)
    assert tally.requests > 3000
    assert not tally.lost
    assert not tally.wrong


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
    counts = json.loads(tally.line())
    assert counts.pop(kind)
    assert not any(counts[other] for other in ("right", "lost", "wrong", "errors") if other != kind)
