"""What HTTP replicas and engine replicas say to each other: tuples, which pickle fast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from fivescore.types import Output


class Sequence(NamedTuple):
    """What ``Engine.encode`` takes."""

    token_ids: list[int]
    request_id: str
    trace_headers: Mapping[str, str] | None
    priority: int
    prefix: int


class Failed(NamedTuple):
    """Why a sequence has no output.

    ``away``: the replica's engine was not running; ``died``: it died with the sequence in it;
    ``no_gate`` and ``error``: the sequence's own fault.
    """

    kind: Literal["away", "died", "no_gate", "error"]
    detail: str


Answer = Output | Failed
