"""Every error that fivescore raises; ``http/problems.py`` maps each to an HTTP answer.

FivescoreError
├── ConfigurationError        configuration       the operator must change something; no start
│   └── ModelChanged          model_changed       a new engine would serve another model
│       └── NotProved         not_proved          it does not give what its proof says
├── RequestError                                  the client must change something
│   ├── InvalidRequest        invalid_request     the request as a whole is malformed
│   ├── InvalidPair           invalid_pair        one pair is malformed
│   ├── TooLong               too_long            one pair has more tokens than the model takes
│   ├── TooManyPairs          too_many_pairs      the request has more pairs than the limit
│   ├── BodyTooLarge          body_too_large      the request has more bytes than the limit
│   ├── Unauthorized          unauthorized        the request has no key, or a wrong one
│   ├── ForeignSite                               without keys: another site may have sent it
│   │   ├── ForeignHost       foreign_host        it asks for a host that is not this service
│   │   └── ForeignOrigin     foreign_origin      a web page of another site sent it
│   └── ClientGone            client_gone         the client closed the connection
├── ServiceUnavailable                            another replica, or the same one later
│   ├── Overloaded            overloaded          too many pairs or tokens in flight
│   ├── RateLimited           rate_limited        the key has sent more pairs than its rate allows
│   ├── Loading               loading             the model is not loaded yet
│   ├── Draining              draining            the service is shutting down
│   └── EngineDead            engine_dead         the engine stopped and cannot score
├── DeadlineExceeded          deadline_exceeded   the request's own deadline passed
└── ScoringError                                  one pair could not be scored
    ├── EngineError           engine_error        the engine failed on this pair
    ├── NonFinite             non_finite          the model answered NaN or Infinity
    └── NoGate                no_gate             it lacks the tokens of the model's gate
"""

from __future__ import annotations

import contextlib


class FivescoreError(Exception):
    """The base of the tree.

    ``code`` is stable, for programs. ``detail`` is a sentence or two for people: what happened, the
    value and the limit, what to do. ``facts`` are the numbers of the detail, for programs.
    """

    code: str

    def __init__(self, detail: str, **facts: int | float | str) -> None:
        self.detail = printable(detail)
        super().__init__(self.detail)
        self.facts = facts


class ConfigurationError(FivescoreError):
    code = "configuration"


class ModelChanged(ConfigurationError):
    """No other engine is started: the service must be, with what its model is now."""

    code = "model_changed"


class NotProved(ModelChanged):
    """What was loaded does not give what the manifest's proof says."""

    code = "not_proved"


class RequestError(FivescoreError):
    code = "request_error"


class InvalidRequest(RequestError):
    """``errors`` lists every fault of the request, each with its ``field`` and ``detail``."""

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


class ForeignSite(RequestError):
    code = "foreign_site"


class ForeignHost(ForeignSite):
    code = "foreign_host"


class ForeignOrigin(ForeignSite):
    code = "foreign_origin"


class ClientGone(RequestError):
    code = "client_gone"


class ServiceUnavailable(FivescoreError):
    """``retry_after`` is when to retry, in seconds."""

    code = "unavailable"

    def __init__(self, detail: str, retry_after: int = 1, **facts: int | float | str) -> None:
        super().__init__(detail, **facts)
        self.retry_after = retry_after


class Overloaded(ServiceUnavailable):
    """``reason`` is the limit that was reached: "pairs" or "tokens"."""

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
    """``names`` lists the attributes that are not finite, and "reward" where it is not."""

    code = "non_finite"

    def __init__(
        self, detail: str, names: tuple[str, ...] = (), **facts: int | float | str
    ) -> None:
        super().__init__(detail, **facts)
        self.names = names


class NoGate(ScoringError):
    """The token ids lack those at which a gated head computes its gate."""

    code = "no_gate"


def printable(text: str) -> str:
    """The text on one line: line breaks, in a file's name for instance, are escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def without_kind(message: str) -> str:
    """A validator's message without the words that pydantic puts before it."""
    return message.removeprefix("Value error, ")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type where it has none."""
    with contextlib.suppress(IndexError, AttributeError, TypeError):
        if hasattr(error, "errors"):  # pydantic's message spreads over many lines
            return str(error.errors()[0]["msg"])
    return (str(error).strip() or type(error).__name__).splitlines()[0]
