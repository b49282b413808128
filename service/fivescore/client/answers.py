"""Reads a server's HTTP response: one result per pair in order, or the error of the request."""

from __future__ import annotations

import math
from typing import Any

import httpx

from fivescore.client.errors import BadAnswer, rebuilt
from fivescore.client.retry import Failure, Retry, retry_for
from fivescore.errors import FivescoreError, RequestError, ScoringError, Unauthorized
from fivescore.types import Score

Result = Score | FivescoreError
_QUOTED_BYTES = 200
"""Bytes of a response that its error quotes where the response is no problem document."""
_CODES = {401: Unauthorized.code, 413: "body_too_large", 429: "overloaded"}
"""Error codes of statuses that a proxy answers: its responses carry no code."""


def results(response: httpx.Response, url: str, count: int) -> list[Result]:
    """One result per pair, in order.

    Raises:
        Failure: the request as a whole failed, or the response does not hold one score per pair.
    """
    if not response.is_success:
        raise failure(response)
    try:
        entries = response.json()["scores"]
        if len(entries) == count:
            return [_result(entry) for entry in entries]
        reason = f"{url} answered {len(entries)} scores to {count} pairs"
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        reason = (
            f"{url} answered {response.status_code}, but not with scores: is it a fivescore server?"
        )
    raise Failure(BadAnswer(reason), Retry.NEVER)


def _result(entry: dict[str, Any]) -> Result:
    if "error" in entry:
        return rebuilt(entry["error"], 0, ScoringError)
    numbers = {name: value for name, value in entry.items() if _is_number(value)}
    for name, value in numbers.items():
        if value is None or not math.isfinite(value):
            return BadAnswer(f"the server answered {name}: {value}, which is not a finite number")
    reward, tokens = float(numbers.pop("reward")), numbers.pop("tokens")
    cached = numbers.pop("cached_tokens", 0)
    attributes = {name: float(value) for name, value in numbers.items()}
    return Score(attributes, reward, tokens, cached, entry.get("truncated", False))


def _is_number(value: Any) -> bool:
    """Whether a field is an attribute or count; other fields of newer servers are ignored."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def failure(response: httpx.Response) -> Failure:
    """The failure for a response whose status is not 2xx."""
    status, retry_after = response.status_code, _retry_after(response)
    try:
        problem = response.json()
        problem = {**problem, "code": problem["code"], "detail": problem["detail"]}
    except (ValueError, KeyError, TypeError):
        problem = {"code": _CODES.get(status, f"http_{status}"), "detail": _summary(response)}
    unknown = RequestError if status < 500 else FivescoreError
    error = rebuilt(problem, retry_after, unknown)
    return Failure(error, retry_for(status, error.code), retry_after)


def _summary(response: httpx.Response) -> str:
    text = " ".join(response.text[:_QUOTED_BYTES].split())
    status = f"{response.status_code} {response.reason_phrase}"
    return f"{response.url} answered {status}: {text}".strip(" :")


def _retry_after(response: httpx.Response) -> float:
    try:
        seconds = float(response.headers.get("Retry-After", 0))
    except ValueError:  # it may be a date
        return 0.0
    return seconds if math.isfinite(seconds) else 0.0
