"""How the pairs of an answer ended: right, wrong, with an explicit error, or lost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fivescore.client.errors import BadAnswer, Unreachable
from fivescore.errors import FivescoreError
from fivescore.types import Score
from tests.faults.known import Known
from tests.faults.result import Tally

WAITING = (429, 503)
"""Statuses that must say when to come again."""


def judged(
    status: int, headers: Mapping[str, str], content: bytes, known: Sequence[Known]
) -> Tally:
    """Of one HTTP answer; of None that has no answer, all are lost."""
    tally = Tally(1, len(known))
    try:
        body = json.loads(content)
        if status == 200:
            _judge_all(body["scores"], known, tally)
        elif status in WAITING and int(headers["Retry-After"]) < 1:
            raise ValueError("Retry-After")
        else:
            tally.errors[str(body["code"])] = len(known)
    except (ValueError, LookupError, TypeError, AttributeError):
        return Tally(1, len(known), lost=len(known))
    return tally


def _judge_all(entries: Sequence[Mapping[str, Any]], known: Sequence[Known], tally: Tally) -> None:
    for entry, pair in zip(entries, known, strict=True):
        if "error" in entry:
            tally.errors[str(entry["error"]["code"])] += 1
        else:
            _judge(entry, pair, tally)


def _judge(numbers: Mapping[str, Any], pair: Known, tally: Tally) -> None:
    if pair.agrees(numbers):
        tally.right += 1
    else:
        tally.wrong += 1


def counted(results: Sequence[Score | FivescoreError], known: Sequence[Known]) -> Tally:
    """Of what the retrying client brought in the end."""
    tally = Tally(pairs=len(known))
    for result, pair in zip(results, known, strict=True):
        if isinstance(result, Unreachable | BadAnswer):
            tally.lost += 1
        elif isinstance(result, FivescoreError):
            tally.errors[result.code] += 1
        else:
            _judge({**result.attributes, "reward": result.reward}, pair, tally)
    return tally
