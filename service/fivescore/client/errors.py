"""Errors that only a client raises, and the server's own, rebuilt from its answers.

FivescoreError
├── Unreachable    unreachable    no replica could be reached, or none answered in time
├── BadAnswer      bad_answer     another request's answer, no scores, or a wrong value
└── OtherInput     other_input    the output file holds the scores of another input

A server's error is raised as the class of ``fivescore.errors`` with its code. An unknown code,
from a newer server, keeps its code and detail in one of that tree's inner classes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from fivescore.errors import FivescoreError, InvalidRequest, ServiceUnavailable, printable

Error = TypeVar("Error", bound=FivescoreError)


def _classes(base: type[FivescoreError]) -> Iterator[type[FivescoreError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _classes(kind)


_BY_CODE = {kind.code: kind for kind in _classes(FivescoreError)}
_NO_FACTS = frozenset({"type", "title", "status", "detail", "code", "errors"})
"""Members of a problem document that are no facts of the error."""
MOST_CHARACTERS = 4000
"""Limit on each text of an error: one that names 100 faults has half of that."""


class Unreachable(FivescoreError):
    code = "unreachable"


class BadAnswer(FivescoreError):
    code = "bad_answer"


class OtherInput(FivescoreError):
    code = "other_input"


def rebuilt(
    problem: Mapping[str, Any], retry_after: float, unknown: type[FivescoreError]
) -> FivescoreError:
    """The error in a problem document or in a pair's ``error``.

    Args:
        problem: has ``code`` and ``detail``; its other numbers and strings become facts. Whoever
            answered may have written it: what is of another type is left out.
        retry_after: the response's Retry-After, in seconds.
        unknown: the class for a code that this version does not know.

    Raises:
        TypeError: it is no problem document.
        LookupError: ``code`` or ``detail`` is missing.
    """
    if not isinstance(problem, Mapping):
        raise TypeError("no JSON object")
    code, detail = problem["code"], problem["detail"]
    if not (isinstance(code, str) and isinstance(detail, str)):
        raise TypeError("code and detail must be strings")
    error = _BY_CODE.get(code, unknown)(_cut(detail))
    error.code = printable(_cut(code))
    error.facts = {
        name: _cut(value) if isinstance(value, str) else value
        for name, value in problem.items()
        if name not in _NO_FACTS and isinstance(value, int | float | str)
    }
    faults = problem.get("errors")
    if isinstance(error, InvalidRequest) and isinstance(faults, list):
        error.errors = [fault for fault in faults if isinstance(fault, dict)]
    if isinstance(error, ServiceUnavailable):
        error.retry_after = round(retry_after)
    return error


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."


def at_pair(error: Error, index: int, failed: int, scored: int) -> Error:
    """A copy of a pair's error that names its place; ``index`` and ``failed`` become facts."""
    copied = copy.copy(error)
    copied.detail = (
        f"pair {index}: {error.detail}; {failed} of the {scored} pairs answered so far failed"
        ' (errors="none" and errors="return" keep the others)'
    )
    copied.args = (copied.detail,)
    copied.facts = {**error.facts, "index": index, "failed": failed}
    return copied
