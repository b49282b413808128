"""Imports a row's checkpoint, serves it with real vLLM, and compares it with its formula."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fivescore.errors import ConfigurationError, InvalidPair
from fivescore.model.checkpoint import Checkpoint
from fivescore.model.token_ids import first_difference
from fivescore.settings import Settings
from fivescore.types import Pair as ServicePair
from tests.e2e.server import Server, environment, running
from tests.published.pairs import PAIRS
from tests.published.published import Published, Row, Values

TOLERANCE = 1e-4
"""The largest difference of the reward or an attribute, with a body in float32."""
LEAST_SPREAD = 0.3
"""The least standard deviation of the reward over the pairs: if less, nothing is shown."""
IMPORT_SECONDS = 300.0


@dataclass
class Outcome:
    """What became of one row.

    Args:
        how: how it was served.
        largest: the largest difference of a reward or an attribute.
        seconds: import, start and scores.
    """

    name: str
    head: str
    how: str
    largest: float = 0.0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        """A line of a table in markdown."""
        found = f"{self.largest:.1e}" if not self.faults else f"**{self.faults[0]}**"
        return f"| {self.name} | {self.head} | {self.how} | {found} | {self.seconds:.0f} |"


def compare(name: str, row: Row, scratch: Path, *, direct: bool = False, ranks: int = 1) -> Outcome:
    """Serve a row's checkpoint and compare 40 pairs, alone, in a batch, and cached.

    Args:
        direct: serve the source as it is, without an import.
        ranks: tensor parallelism.
    """
    published = row.make(scratch / "source")
    how = "as it is" if direct else "imported"
    outcome = Outcome(name, row.head, how if ranks == 1 else f"{how}, {ranks} ranks")
    begin = time.perf_counter()
    flags = published.direct if direct else ()
    folder = published.source
    if not direct:
        folder = scratch / "imported"
        done = import_(published.source, folder, *published.options)
        if done.returncode != 0:
            outcome.faults.append(f"import: {last_line(done)}")
            return outcome
    assert flags is not None, f"{name} has to be imported"
    wanted = [published.rendering.ids(pair) for pair in PAIRS]
    outcome.faults += _other_ids(folder, flags, published, wanted)
    serving = ("--model", str(folder), "--engine.dtype", "float32", *flags)
    ranked = ("--engine.tensor-parallel-size", str(ranks)) if ranks > 1 else ()
    try:
        with running(scratch / "log", *serving, *ranked) as server:
            server.until_ready()
            _compare_values(outcome, server, published, wanted)
    except AssertionError as error:
        outcome.faults.append(str(error).strip().splitlines()[-1])
    outcome.seconds = time.perf_counter() - begin
    return outcome


def import_(source: Path, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run ``fivescore import``."""
    command = (sys.executable, "-m", "fivescore", "import", str(source), "--output", str(output))
    return subprocess.run(
        [*command, *options],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=IMPORT_SECONDS,
        check=False,
    )


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """The last line that a process wrote to its standard error."""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit {done.returncode} without a word"


def _other_ids(
    folder: Path, flags: Sequence[str], published: Published, wanted: Sequence[list[int] | None]
) -> Iterator[str]:
    """Where the service's token ids are not those of the published code."""
    if published.rendering.principle and not _asks_for_principles():
        return
    manifest = flags[flags.index("--manifest") + 1] if "--manifest" in flags else None
    bodies = [ServicePair.model_validate(_body(published, i, wanted)) for i in range(len(PAIRS))]
    try:
        settings = Settings(model=str(folder), manifest=manifest)
        found = Checkpoint(settings).conversation().encode(bodies)
    except ConfigurationError as error:
        yield f"refused: {error.detail}"
        return
    for place, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        if isinstance(ours, InvalidPair) or theirs is None:
            if not isinstance(ours, InvalidPair) or theirs is not None:
                yield f"pair {place}: the template refuses it in one of the two: {ours}, {theirs}"
        elif (at := first_difference(theirs, ours)) is not None:
            around = slice(max(at - 2, 0), at + 4)
            yield f"pair {place}: token {at}: published {theirs[around]}, ours {ours[around]}"


def _compare_values(
    outcome: Outcome, server: Server, published: Published, wanted: Sequence[list[int] | None]
) -> None:
    values = [None if ids is None else published.values(ids) for ids in wanted]
    rewards = [one["reward"] for one in values if one is not None]
    if statistics.stdev(rewards) < LEAST_SPREAD:
        outcome.faults.append("the reward hardly depends on the pair: nothing is shown")
    bodies = [_body(published, place, wanted) for place in range(len(PAIRS))]
    # Every second pair alone, then all at once, so half of them with a cached prefix; then alone.
    alone = {place: server.score([bodies[place]])[0] for place in range(0, len(PAIRS), 2)}
    batch = dict(enumerate(server.score(bodies)))
    again = {place: server.score([bodies[place]])[0] for place in range(len(PAIRS))}
    for way, answers in (("alone", alone), ("in a batch", batch), ("cached", again)):
        for place, answer in answers.items():
            expected = values[place]
            if expected is None:
                if "error" not in answer:
                    outcome.faults.append(f"pair {place} {way}: no error, but {answer}")
                continue
            found = difference(answer, expected)
            outcome.largest = max(outcome.largest, found)
            if not found <= TOLERANCE:
                outcome.faults.append(f"pair {place} {way}: {answer} for {expected}")
    if not any(answer.get("cached_tokens") for answer in again.values()):
        outcome.faults.append("no pair had a cached prefix")


def difference(answer: Mapping[str, Any], expected: Values) -> float:
    """The largest difference of what the formula gives; infinite where the answer lacks it."""
    return max(
        abs(answer[name] - value) if name in answer else float("inf")
        for name, value in expected.items()
    )


def _body(
    published: Published, place: int, wanted: Sequence[list[int] | None]
) -> dict[str, object]:
    pair = PAIRS[place]
    if not published.rendering.principle:
        return pair.body
    if _asks_for_principles():
        return {**pair.body, "principle": pair.principle}
    return {"token_ids": wanted[place]}


def _asks_for_principles() -> bool:
    return "principle" in ServicePair.model_fields


def table(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """The lines of a table in markdown, one after another."""
    yield "| row | head | served | largest difference | seconds |"
    yield "|---|---|---|---|---|"
    for outcome in outcomes:
        yield outcome.line
