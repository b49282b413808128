"""Reads what a server answered: scores in order, or the error of the request."""

from __future__ import annotations

import math
from typing import Any

import httpx

from fivescore.client.errors import BadAnswer, rebuilt
from fivescore.client.retry import Cure, Failure, cure
from fivescore.errors import FivescoreError, RequestError, ScoringError, Unauthorized
from fivescore.types import Score

Result = Score | FivescoreError
_SHOWN_BYTES = 200
"""How much of an answer that is no problem document its error repeats."""
_CODES = {401: Unauthorized.code, 413: "body_too_large", 429: "overloaded"}
"""What statuses mean when a proxy, and not the server, gave them."""


def results(response: httpx.Response, url: str, count: int) -> list[Result]:
    """One result per pair, in order.

    Raises:
        Failure: the request as a whole failed, or its answer is not one score per pair.
    """
    if not response.is_success:
        raise failure(response)
    try:
        entries = response.json()["scores"]
        if len(entries) == count:
            return [_result(entry) for entry in entries]
        reason = f"{url} answered {len(entries)} scores to {count} pairs"
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        reason = f"{url} answered {response.status_code}, but not with scores: is it a fivescore?"
    raise Failure(BadAnswer(reason), Cure.NOTHING)


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
    """Whether it should be one; what a later server may add to a score is left out."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def failure(response: httpx.Response) -> Failure:
    """The failure that an answer other than 2xx is."""
    status, advised = response.status_code, _retry_after(response)
    try:
        problem = response.json()
        problem = {**problem, "code": problem["code"], "detail": problem["detail"]}
    except (ValueError, KeyError, TypeError):
        problem = {"code": _CODES.get(status, f"http_{status}"), "detail": _shown(response)}
    unknown = RequestError if status < 500 else FivescoreError
    error = rebuilt(problem, advised, unknown)
    return Failure(error, cure(status, error.code), advised)


def _shown(response: httpx.Response) -> str:
    text = " ".join(response.text[:_SHOWN_BYTES].split())
    return f"{response.url} answered {response.status_code} {response.reason_phrase}: {text}".strip(
        " :"
    )


def _retry_after(response: httpx.Response) -> float:
    try:
        seconds = float(response.headers.get("Retry-After", 0))
    except ValueError:  # it may be a date
        return 0.0
    return seconds if math.isfinite(seconds) else 0.0
