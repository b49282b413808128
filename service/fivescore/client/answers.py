"""Reads a server's HTTP answer: one result per pair in order, or the error of the request."""

from __future__ import annotations

import math
from typing import Any

from fivescore.client.errors import BadAnswer, rebuilt
from fivescore.client.exchange import Answer
from fivescore.client.retry import Failure, Retry, retry_for
from fivescore.errors import FivescoreError, RequestError, ScoringError, Unauthorized
from fivescore.types import Score

Result = Score | FivescoreError
_SHOWN = 200
"""Characters of an answer that its error quotes, where it is no score or problem document."""
_OPTIONAL = ("cached_tokens", "truncated")
_COUNTS = frozenset({"tokens", "cached_tokens"})
MOST_TOKENS = 2**31
"""Limit on a pair's tokens: no model's context is near it, and any format of files can hold it."""
MOST_RETRY_SECONDS = 86_400.0
"""Limit on a Retry-After, in seconds: a day is longer than any run waits."""
_CODES = {401: Unauthorized.code, 413: "body_too_large", 429: "overloaded"}
"""Error codes of statuses that a proxy answers: its responses carry no code."""


def results(answer: Answer, url: str, count: int) -> list[Result]:
    """One result per pair, in order.

    Raises:
        Failure: the request as a whole failed, or the answer does not hold one score per pair.
    """
    if not answer.is_success:
        raise failure(answer)
    if answer.fault:
        reason = f"{url} answered {answer.fault} to {count} pairs, which is not read"
        raise Failure(BadAnswer(reason), Retry.NEVER)
    try:
        entries = answer.json()["scores"]
        if len(entries) == count:
            return [_result(entry) for entry in entries]
        reason = f"{url} answered {len(entries)} scores to {count} pairs"
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        reason = f"{url} answered {answer.status}, but not with scores: is it a fivescore server?"
    raise Failure(BadAnswer(reason), Retry.NEVER)


def row_of(result: Result) -> dict[str, Any]:
    """A result in the form of ``POST /score``'s answer.

    Raises:
        FivescoreError: the result is the failure of a whole request, which may succeed later.
    """
    if isinstance(result, Score):
        return result.to_dict()
    if not isinstance(result, RequestError | ScoringError):
        raise result
    return {"error": {"code": result.code, "detail": result.detail, **result.facts}}


def _result(entry: dict[str, Any]) -> Result:
    if "error" in entry:
        return rebuilt(entry["error"], 0, ScoringError)
    entry = {"cached_tokens": 0, "truncated": False, **entry}
    for name, value in entry.items():
        if fault := _fault(name, value):
            return BadAnswer(f"the server answered {name}: {str(value)[:_SHOWN]}, which is {fault}")
    tokens, cached, truncated = (entry.pop(name) for name in ("tokens", *_OPTIONAL))
    numbers = {name: float(value) for name, value in entry.items() if _is_number(value)}
    return Score(numbers, numbers.pop("reward"), tokens, cached, truncated)


def _fault(name: str, value: Any) -> str:
    """What is wrong with a field of a score; fields that newer servers may add are ignored."""
    if name == "truncated":
        return "" if isinstance(value, bool) else "neither true nor false"
    if name in _COUNTS:
        counted = isinstance(value, int) and not isinstance(value, bool)
        return "" if counted and 0 <= value <= MOST_TOKENS else "no number of tokens"
    if value is None or (_is_number(value) and not math.isfinite(value)):
        return "not a finite number"
    return "" if name != "reward" or _is_number(value) else "no number"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def failure(answer: Answer) -> Failure:
    """The failure for an answer whose status is not 2xx."""
    status, retry_after = answer.status, _retry_after(answer)
    unknown = RequestError if status < 500 else FivescoreError
    try:
        error = rebuilt(answer.json(), retry_after, unknown)
    except (ValueError, LookupError, TypeError):
        problem = {"code": _CODES.get(status, f"http_{status}"), "detail": _summary(answer)}
        error = rebuilt(problem, retry_after, unknown)
    return Failure(error, retry_for(status, error.code), retry_after)


def _summary(answer: Answer) -> str:
    text = " ".join(answer.content[:_SHOWN].decode(errors="replace").split())
    return f"{answer.url} answered {answer.status} {answer.reason}: {text}".strip(" :")


def _retry_after(answer: Answer) -> float:
    try:
        seconds = float(answer.headers.get("Retry-After", 0))
    except ValueError:  # it may be a date
        return 0.0
    return min(max(0.0, seconds), MOST_RETRY_SECONDS) if math.isfinite(seconds) else 0.0
