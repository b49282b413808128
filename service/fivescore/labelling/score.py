"""``fivescore score FILE``: one pass over the input, in which each row is scored or reused."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fivescore.client.client import AsyncRewardClient
from fivescore.client.errors import OtherInput
from fivescore.client.served import Served
from fivescore.data.inputs import Input
from fivescore.data.rows import BadRows
from fivescore.data.writer import Columns
from fivescore.errors import (
    ConfigurationError,
    FivescoreError,
    RequestError,
    ScoringError,
)
from fivescore.labelling.answers import Answers, NoAnswers
from fivescore.labelling.output import DEFAULT_FORMAT, Files, Part, Stream
from fivescore.labelling.rows import FIRST_ROWS, ID, Choice, Line, lines
from fivescore.labelling.watch import Watch
from fivescore.types import ATTRIBUTES, Score

ROUNDED = (0, 4)
"""The lowest and the highest value of HelpSteer2's attributes (arXiv 2406.08673), to which
``--round`` limits them."""


LOG_SECONDS = 10.0
"""Least seconds between two lines of progress where nobody watches a terminal."""


@dataclass(frozen=True)
class Shape:
    """How scores become columns: an optional prefix of their names, and rounding."""

    attributes: tuple[str, ...]
    prefix: str = ""
    rounded: bool = False

    @property
    def columns(self) -> Columns:
        """The columns of scores and of errors, with their types."""
        numbers = {name: "int64" if self._is_rounded(name) else "float64"
                   for name in (*self.attributes, "reward")}  # fmt: skip
        error = {"code": "string", "detail": "string"}
        rest = {"tokens": "int64", "truncated": "bool", "error": error}
        return {self.prefix + name: kind for name, kind in (numbers | rest).items()}

    def _is_rounded(self, name: str) -> bool:
        return self.rounded and name in ATTRIBUTES

    def row(self, line: Line) -> dict[str, Any]:
        """The output of a line that is done."""
        if line.error is not None:
            return {**line.kept, self.prefix + "error": _error(line.error)}
        assert line.score is not None
        least, most = ROUNDED
        return line.kept | {
            self.prefix + name: min(most, max(least, round(value)))
            if self._is_rounded(name)
            else value
            for name, value in line.score.items()
        }


def _error(error: FivescoreError) -> dict[str, str]:
    return {"code": error.code, "detail": error.detail}


@dataclass
class Scored:
    """Counts of a run; ``bad`` has the rows that failed, by the code of their error."""

    rows: int = 0
    reused: int = 0
    """Rows that earlier runs have scored."""
    bad: BadRows = field(default_factory=BadRows)

    @property
    def failed(self) -> int:
        return self.bad.counts.total()

    def add(self, line: Line) -> None:
        self.rows += 1
        if line.error is not None:
            self.bad.add(f"{line.row.place}: {line.error.detail}", line.error.code)


@dataclass(frozen=True)
class Job:
    """What is scored, into what.

    Args:
        about: the description of the run.
        keep_going: do not stop where the first rows all fail alike.
    """

    source: Input
    output: Files | Stream
    about: Mapping[str, Any]
    choice: Choice
    shape: Shape
    keep_going: bool = False
    notice: Callable[[str], None] | None = None
    """Is given lines for people, as ``lines`` describes."""


@dataclass(frozen=True)
class Asking:
    """How the servers are asked: the requests' options, and how many of which size at once."""

    client: AsyncRewardClient
    options: Mapping[str, Any]
    batch_size: int
    concurrency: int
    served: Callable[[float], Served]
    """Asks what they serve, with retries for the given seconds; blocks."""
    retry_seconds: float


async def score_file(job: Job, asking: Asking) -> Scored:
    """Score the rows of a job that earlier runs have not scored, and write all of them.

    Raises:
        FivescoreError: the input cannot be read or is another one than before, the output is not
            that of this run, a request failed for good, or the servers have got another model.
            What is scored so far is kept, of which a note of the error tells.
        OSError: the output cannot be written.
    """
    with job.output.answers(job.about) as answers:
        record = job.output.record(job.about, answers)
        if record is None:
            try:
                return await _score(job, answers, asking)
            except BaseException as error:
                if len(answers):
                    error.add_note(f"{job.output.name}: {_continued(answers)}")
                raise
    if not _is_input_of(record, job):
        raise OtherInput(
            f"{job.output.name} is the output of another input ({record['rows']} rows): choose"
            f" another -o, or remove {job.output.name} to start over"
        )
    return Scored(rows=record["rows"], reused=record["rows"])


def _continued(answers: Answers | NoAnswers) -> str:
    return (
        f"{len(answers)} scores are kept in {answers.path}: run the same command again to continue"
    )


async def _score(job: Job, answers: Answers | NoAnswers, asking: Asking) -> Scored:
    watch = Watch(job.about, asking.served, answers)
    run = _Run(job, answers, watch)
    try:
        async with asking.client, watch.looking():
            await run.all_rows(asking)
        if run.scored.reused < run.scored.rows - run.scored.failed:
            await watch.look(asking.retry_seconds)
        job.output.end(run.record(), answers)
    finally:
        job.output.close()
    if not run.scored.failed:
        answers.finish()
    return run.scored


class _Run:
    """One pass over the rows of a job."""

    def __init__(self, job: Job, answers: Answers | NoAnswers, watch: Watch) -> None:
        self._job, self._answers, self._watch = job, answers, watch
        self._known = answers.last()
        self._digest = hashlib.sha256()
        self._part: Part | None = None
        self.scored = Scored()

    async def all_rows(self, asking: Asking) -> None:
        source = self._job.source
        rows = self._lines()
        seconds = 0.1 if sys.stderr.isatty() else LOG_SECONDS
        name = Path(source.name).name
        with tqdm(
            total=source.count(DEFAULT_FORMAT), unit="pair", desc=name, mininterval=seconds
        ) as bar:
            await self._pass(islice(rows, FIRST_ROWS), asking, bar)
            if not self._job.keep_going:
                self._check_first()
            await self._pass(rows, asking, bar)
        if self._known > self.scored.rows:
            raise OtherInput(
                f"{source.name} has {self.scored.rows} rows, and {self._job.output.name} was"
                f" scored from one with at least {self._known}: choose another -o"
            )
        if self._part is None:  # without any rows
            self._begin(Part(source.files[0], {ID: "int64", **self._job.shape.columns}, ()))

    def record(self) -> dict[str, Any]:
        """What the output says about the run that made it."""
        files = [file.name for file in self._job.source.files]
        return {
            **self._watch.about,
            "input": {"files": files, "sha256": self._digest.hexdigest()},
            "rows": self.scored.rows,
            "failed": dict(sorted(self.scored.bad.counts.items())),
        }

    def _lines(self) -> Iterator[Line]:
        job = self._job
        for line in lines(job.source, job.choice, job.shape.columns, job.notice):
            self._digest.update(line.key)
            found = self._answers.score(line.number) if line.number <= self._known else None
            if found is not None:
                key, line.score = found
                if key != line.key:
                    raise OtherInput(
                        f"{line.row.place} is not the row that was scored for"
                        f" {self._job.output.name}: choose another -o for another input"
                    )
                self.scored.reused += 1
            yield line

    async def _pass(self, rows: Iterable[Line], asking: Asking, bar: tqdm[Any]) -> None:
        running: deque[asyncio.Task[list[Line]]] = deque()
        batches = _batches(iter(rows), asking.batch_size)
        try:
            while True:
                for batch in islice(batches, asking.concurrency - len(running)):
                    running.append(asyncio.create_task(self._answered(batch, asking)))
                if not running:
                    return
                done = await running.popleft()
                self._watch.check()
                self._write(done)
                bar.update(len(done))
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _answered(self, batch: list[Line], asking: Asking) -> list[Line]:
        """The batch with a score or an error in each line; scores are kept at once."""
        asked = [line for line in batch if line.pair is not None and line.score is None]
        pairs = [line.pair for line in asked if line.pair is not None]
        results = await asking.client.score(pairs, **asking.options, errors="return")
        lost: FivescoreError | None = None
        for line, result in zip(asked, results, strict=True):
            if isinstance(result, Score):
                line.score = _kept(result)
            elif isinstance(result, RequestError | ScoringError):
                line.error = result
            else:  # the whole request failed, and may succeed later
                lost = result
        self._answers.add(
            (line.number, line.key, line.score) for line in asked if line.score is not None
        )
        if lost is not None:
            raise lost
        return batch

    def _write(self, batch: list[Line]) -> None:
        for line in batch:
            self._begin(line.part)
            self._job.output.write(self._job.shape.row(line))
            self.scored.add(line)

    def _begin(self, part: Part) -> None:
        if self._part is None or part.file != self._part.file:
            self._part = part
            self._job.output.begin(part, self._watch.about)

    def _check_first(self) -> None:
        """Refuse an input whose first rows all fail alike: so would the others."""
        bad, rows = self.scored.bad, self.scored.rows
        if rows < FIRST_ROWS or self.scored.failed < rows or len(bad.counts) > 1:
            return
        ((code, place),) = bad.first.items()
        raise ConfigurationError(
            f"the first {rows} rows all failed with {code} ({place}): nothing more was scored;"
            " correct the input or the options, or give --keep-going"
        )


def _is_input_of(record: Mapping[str, Any], job: Job) -> bool:
    """Whether the rows of a job are those of which ``record`` tells."""
    digest = hashlib.sha256()
    for line in lines(job.source, job.choice, job.shape.columns):
        digest.update(line.key)
    return bool(record["input"]["sha256"] == digest.hexdigest())


def _batches(rows: Iterator[Line], size: int) -> Iterator[list[Line]]:
    while batch := list(islice(rows, size)):
        yield batch


def _kept(score: Score) -> dict[str, Any]:
    """A score as it is kept: without ``cached_tokens``, which differ from run to run."""
    kept = score.to_dict()
    del kept["cached_tokens"]
    return kept
