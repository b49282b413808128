"""Sends hostile requests, each beside a normal one, and judges what comes back."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import httpx

from tests.faults import result
from tests.faults.bad_input.corpus import Case
from tests.integration.protocols.protocols import PAIRS

LONGEST_SECONDS = 120.0
"""An answer that takes longer is a hang, on a slow machine too."""
AT_ONCE = 8
MOST_REFUSAL_BYTES = 2**17
"""A refusal must not cost more than it was worth to ask."""
TOLERANCE = 1e-4
"""By which a score may differ with what it is batched with (float32; see docs/reference.md)."""
STREAMED_BYTES = 100 * 2**20
NORMAL = {"pairs": list(PAIRS)}


@dataclass
class Tally(result.Tally):
    """What came back; ``notes`` says what is lost or wrong, in words."""

    notes: list[str] = field(default_factory=list)

    def tell(self, kind: str, case: Case, what: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        self.notes.append(f"{kind}: POST {case.path} {case.name}: {what}"[:300])


async def send_all(http: httpx.AsyncClient, cases: Iterable[Case]) -> Tally:
    """Send the cases, a few at once, and a normal request beside them."""
    tally = Tally()
    scores = (await http.post("/score", json=NORMAL, timeout=LONGEST_SECONDS)).json()["scores"]
    normal = [entry["reward"] for entry in scores]
    waiting = iter(cases)
    while batch := list(islice(waiting, AT_ONCE)):
        async with asyncio.TaskGroup() as group:
            for case in batch:
                group.create_task(_send(http, case, tally))
            group.create_task(_send_normal(http, batch[0], normal, tally))
    await _stream(http, tally)
    return tally


async def _send(http: httpx.AsyncClient, case: Case, tally: Tally) -> None:
    tally.requests += 1
    tally.pairs += 1
    try:
        response = await http.post(case.path, content=case.body, timeout=LONGEST_SECONDS)
    except httpx.HTTPError as error:
        tally.tell("lost", case, type(error).__name__)
        return
    judge(case, response, tally)


def judge(case: Case, response: httpx.Response, tally: Tally) -> None:
    """Scores are numbers; a refusal is a problem document that names the field."""
    try:
        body = json.loads(response.content, parse_constant=_refuse)
    except ValueError as error:
        if response.status_code != 200 or b"data: " not in response.content:
            tally.tell("lost", case, f"{response.status_code}, {error}")
        return
    if response.status_code == 200:
        if case.refused or not all(map(math.isfinite, _numbers(body))):
            tally.tell("wrong", case, response.text[:100])
        else:
            tally.right += 1
    elif not 400 <= response.status_code < 500:
        tally.tell("lost", case, f"{response.status_code} {response.text[:200]}")
    elif fault := _fault(case, response, body):
        tally.tell("lost", case, f"{fault}: {response.text[:200]}")
    else:
        tally.errors[body["code"]] += 1


def _fault(case: Case, response: httpx.Response, body: Any) -> str:
    if response.headers["Content-Type"] != "application/problem+json":
        return "no problem document"
    if not isinstance(body, dict) or {"code", "detail", "status", "title"} - body.keys():
        return "an incomplete problem document"
    if len(response.content) > MOST_REFUSAL_BYTES:
        return f"{len(response.content)} bytes"
    told = body["detail"] + json.dumps(body.get("errors", []))
    whole = "the body " in body["detail"]  # no field is at fault where it is no JSON at all
    # Where a route knows prompts and responses by other names, a pair's own error says those.
    names = rf"\b({case.field}|prompt|response)\b"
    whole = whole or body["code"] == "too_long"
    if case.field and not whole and not re.search(names, told):
        return f"does not name {case.field}"
    return ""


async def _send_normal(
    http: httpx.AsyncClient, case: Case, expected: list[float], tally: Tally
) -> None:
    tally.requests += 1
    tally.pairs += len(expected)
    beside = Case(f"normal beside {case.name}", "/score", b"")
    try:
        response = await http.post("/score", json=NORMAL, timeout=LONGEST_SECONDS)
        rewards = [entry["reward"] for entry in response.json()["scores"]]
    except (httpx.HTTPError, ValueError, LookupError) as error:
        tally.tell("lost", beside, type(error).__name__)
        return
    if all(abs(a - b) <= TOLERANCE for a, b in zip(rewards, expected, strict=True)):
        tally.right += len(rewards)
    else:
        tally.tell("wrong", beside, f"{rewards}, not {expected}")


async def _stream(http: httpx.AsyncClient, tally: Tally) -> None:
    """100 MB without a length: refused at the limit, however long it goes on."""

    async def endless() -> AsyncIterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(STREAMED_BYTES // 2**20):
            yield b"x" * 2**20

    case = Case("100 MB streamed", "/score", b"", refused=True)
    tally.requests += 1
    tally.pairs += 1
    try:
        response = await http.post("/score", content=endless(), timeout=LONGEST_SECONDS)
    except httpx.HTTPError as error:
        tally.tell("lost", case, type(error).__name__)
        return
    judge(case, response, tally)


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in _numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, float) else []


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} in an answer")
