"""Every error fivescore raises; ``http/problems.py`` knows how HTTP answers each.

FivescoreError
├── ConfigurationError        configuration       the operator must change something; start-up stops
├── RequestError                                  the client must change something
│   ├── InvalidRequest        invalid_request     the request as a whole is malformed
│   ├── InvalidPair           invalid_pair        one pair is malformed
│   ├── TooLong               too_long            one pair has more tokens than the model takes
│   ├── TooManyPairs          too_many_pairs      the request has more pairs than the limit
│   ├── BodyTooLarge          body_too_large      the request has more bytes than the limit
│   ├── Unauthorized          unauthorized        the request has no key, or a wrong one
│   └── ClientGone            client_gone         the client closed the connection
├── ServiceUnavailable                            another replica, or the same one later
│   ├── Overloaded            overloaded          too many pairs or tokens in flight
│   ├── RateLimited           rate_limited        more pairs came with this key than its rate allows
│   ├── Loading               loading             the model is not loaded yet
│   ├── Draining              draining            the service is shutting down
│   └── EngineDead            engine_dead         the engine stopped and cannot score
├── DeadlineExceeded          deadline_exceeded   the request's own deadline passed
└── ScoringError                                  one pair could not be scored
    ├── EngineError           engine_error        the engine failed on this pair
    └── NonFinite             non_finite          the model answered NaN or Infinity
"""

from __future__ import annotations

import contextlib


class FivescoreError(Exception):
    """Base of the tree.

    ``code`` is stable and meant for programs; ``detail`` is one sentence for people that names the
    field, the limit and what to do; ``facts`` are the numbers in it, for programs again.
    """

    code: str

    def __init__(self, detail: str, **facts: int | float | str) -> None:
        self.detail = printable(detail)
        super().__init__(self.detail)
        self.facts = facts


class ConfigurationError(FivescoreError):
    code = "configuration"


class RequestError(FivescoreError):
    code = "request_error"


class InvalidRequest(RequestError):
    """``errors`` lists every fault found, each with its ``field`` and ``detail``."""

    code = "invalid_request"

    def __init__(
        self, detail: str, errors: list[dict[str, str]] | None = None, **facts: int | float | str
    ) -> None:
        super().__init__(detail, **facts)
        self.errors = errors or []


class InvalidPair(RequestError):
    code = "invalid_pair"


class TooLong(RequestError):
    code = "too_long"


class TooManyPairs(RequestError):
    code = "too_many_pairs"


class BodyTooLarge(RequestError):
    code = "body_too_large"


class Unauthorized(RequestError):
    code = "unauthorized"


class ClientGone(RequestError):
    code = "client_gone"


class ServiceUnavailable(FivescoreError):
    """``retry_after`` is in seconds."""

    code = "unavailable"

    def __init__(self, detail: str, retry_after: int = 1, **facts: int | float | str) -> None:
        super().__init__(detail, **facts)
        self.retry_after = retry_after


class Overloaded(ServiceUnavailable):
    """``reason`` is the limit that was met: "pairs" or "tokens"."""

    code = "overloaded"

    def __init__(
        self, detail: str, retry_after: int = 1, reason: str = "pairs", **facts: int | float | str
    ) -> None:
        super().__init__(detail, retry_after, **facts)
        self.reason = reason


class RateLimited(ServiceUnavailable):
    code = "rate_limited"


class Loading(ServiceUnavailable):
    code = "loading"


class Draining(ServiceUnavailable):
    code = "draining"


class EngineDead(ServiceUnavailable):
    code = "engine_dead"


class DeadlineExceeded(FivescoreError):
    code = "deadline_exceeded"


class ScoringError(FivescoreError):
    code = "scoring_error"


class EngineError(ScoringError):
    code = "engine_error"


class NonFinite(ScoringError):
    """``names`` are the attributes that are not finite, and "reward" where that is not."""

    code = "non_finite"

    def __init__(
        self, detail: str, names: tuple[str, ...] = (), **facts: int | float | str
    ) -> None:
        super().__init__(detail, **facts)
        self.names = names


def printable(text: str) -> str:
    """In one line: names of somebody's own go into errors and log lines, and may have breaks."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """What a library's error says, in one line; its kind where it says nothing."""
    with contextlib.suppress(IndexError, AttributeError, TypeError):
        if hasattr(error, "errors"):  # pydantic's message spreads over many lines
            return str(error.errors()[0]["msg"])
    return (str(error).strip() or type(error).__name__).splitlines()[0]
