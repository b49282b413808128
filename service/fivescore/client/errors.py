"""Errors that only a client raises, and the server's own, rebuilt from its answers.

FivescoreError
├── Unreachable    unreachable    no replica could be reached, or none answered in time
├── BadAnswer      bad_answer     the answer lacks scores, or a value is not a finite number
└── OtherInput     other_input    the output file holds the scores of another input

A server's error is raised as the class of ``fivescore.errors`` with its code. An unknown code,
from a newer server, keeps its code and detail in one of that tree's inner classes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from fivescore.errors import FivescoreError, InvalidRequest, ServiceUnavailable

Error = TypeVar("Error", bound=FivescoreError)


def _classes(base: type[FivescoreError]) -> Iterator[type[FivescoreError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _classes(kind)


_BY_CODE = {kind.code: kind for kind in _classes(FivescoreError)}
_NO_FACTS = frozenset({"type", "title", "status", "detail", "code", "errors"})
"""Members of a problem document that are no facts of the error."""


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
        problem: has ``code`` and ``detail``; its other numbers and strings become facts.
        retry_after: the response's Retry-After, in seconds.
        unknown: the class for a code that this version does not know.
    """
    code, detail = str(problem["code"]), str(problem["detail"])
    error = _BY_CODE.get(code, unknown)(detail)
    error.code = code
    error.facts = {
        name: value
        for name, value in problem.items()
        if name not in _NO_FACTS and isinstance(value, int | float | str)
    }
    if isinstance(error, InvalidRequest):
        error.errors = list(problem.get("errors", []))
    if isinstance(error, ServiceUnavailable):
        error.retry_after = round(retry_after)
    return error


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
