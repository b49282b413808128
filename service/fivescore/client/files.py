"""``fivescore score pairs.jsonl -o scores.jsonl``: scores a file of pairs into a file of scores.

Line n of the output answers row n of the input (line n in JSON Lines). Each output line carries a
hash of its input row, so that a restarted run continues where it stopped, and refuses an output
that belongs to another input.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from fivescore import content
from fivescore.client.client import AsyncRewardClient
from fivescore.client.errors import OtherInput
from fivescore.data import writer
from fivescore.data.formats import count_rows, read_file
from fivescore.data.rows import BadRows, Row
from fivescore.errors import FivescoreError, InvalidPair, RequestError, ScoringError
from fivescore.types import PAIR_FIELDS, Pair, Score, parse_pair

ANSWER_START = b'{"input": "'
"""The first bytes of an output line, by which a torn last line is recognised."""
DEFAULT_FORMAT = ".jsonl"
"""The format of a file whose name has no known ending."""


@dataclass
class Scored:
    """Counts of a run: all ``rows`` answered, and ``bad`` rows by the code of their error."""

    rows: int = 0
    bad: BadRows = field(default_factory=BadRows)

    @property
    def failed(self) -> int:
        return self.bad.counts.total()

    def add(self, row: Row, answer: dict[str, Any]) -> None:
        self.rows += 1
        if "error" in answer:
            error = answer["error"]
            self.bad.add(row.place, str(error.get("code")) if isinstance(error, dict) else "error")


async def score_file(
    client: AsyncRewardClient,
    source: Path,
    target: Path,
    *,
    batch_size: int,
    concurrency: int,
    **options: Any,
) -> Scored:
    """Score a file of pairs in any format of ``fivescore.data``.

    Raises:
        FivescoreError: the file cannot be read, or a request failed for good; the output keeps
            what is scored so far.
        OSError: the output cannot be written.
    """
    total = count_rows(source, DEFAULT_FORMAT)
    rows = read_file(source, DEFAULT_FORMAT)
    scored = _resume(rows, target)
    with (
        target.open("ab") as output,
        tqdm(total=total, initial=scored.rows, unit="pair", desc=source.name) as bar,
    ):
        running: deque[asyncio.Task[list[tuple[Row, dict[str, Any]]]]] = deque()
        batches = _batches(rows, batch_size)
        try:
            while True:
                for batch in islice(batches, concurrency - len(running)):
                    running.append(asyncio.create_task(_score(client, batch, options)))
                if not running:
                    return scored
                answers = await running.popleft()
                _write(output, answers, scored)
                bar.update(len(answers))
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while batch := list(islice(rows, size)):
        yield batch


async def _score(
    client: AsyncRewardClient, rows: list[Row], options: dict[str, Any]
) -> list[tuple[Row, dict[str, Any]]]:
    parsed = [_pair(row) for row in rows]
    pairs = [pair for pair in parsed if isinstance(pair, Pair)]
    scores = iter(await client.score(pairs, **options, errors="return"))
    answers = [row_of(next(scores)) if isinstance(pair, Pair) else pair for pair in parsed]
    return list(zip(rows, answers, strict=True))


def row_of(result: Score | FivescoreError) -> dict[str, Any]:
    """A result in the form of ``POST /score``'s answer.

    Raises:
        FivescoreError: the result is the failure of a whole request, which may succeed later.
    """
    if isinstance(result, Score):
        rest = dataclasses.asdict(result)
        return {**rest.pop("attributes"), **rest}
    if not isinstance(result, RequestError | ScoringError):
        raise result
    return {"error": {"code": result.code, "detail": result.detail, **result.facts}}


def _pair(row: Row) -> Pair | dict[str, Any]:
    """The pair of a row, or the output line of a row that holds none."""
    if row.value is None:
        code = "invalid_row" if row.raw is None else "invalid_json"
        detail = f"{row.fault}: {row.detail}" if row.detail else row.fault
        return {"error": {"code": code, "detail": detail}}
    # Other fields, such as ids and labels, are not sent.
    sent = PAIR_FIELDS | content.OF_ROWS
    pair = parse_pair({name: value for name, value in row.value.items() if name in sent})
    return row_of(pair) if isinstance(pair, InvalidPair) else pair


def _hash(row: Row) -> str:
    return hashlib.sha256(row.content().strip()).hexdigest()[:16]


def _write(output: BinaryIO, answers: list[tuple[Row, dict[str, Any]]], scored: Scored) -> None:
    writer.append(output, ({"input": _hash(row), **answer} for row, answer in answers))
    for row, answer in answers:
        scored.add(row, answer)


def _resume(rows: Iterator[Row], target: Path) -> Scored:
    """Skip the rows that ``target`` already answers; cuts off its last line if it is torn."""
    scored, whole = Scored(), 0
    if not target.exists():
        return scored
    with target.open("rb") as answers:
        for line in answers:
            if not line.endswith(b"\n") and line.startswith(ANSWER_START[: len(line)]):
                break
            row, answer = next(rows, None), _answer(line)
            if row is None or answer.get("input") != _hash(row):
                place = scored.rows + 1
                raise OtherInput(
                    f"{target} line {place} does not answer row {place} of the input: remove"
                    f" {target}, or choose another -o"
                )
            scored.add(row, answer)
            whole += len(line)
    with target.open("rb+") as answers:
        answers.truncate(whole)
    return scored


def _answer(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}
