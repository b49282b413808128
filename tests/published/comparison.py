"""Imports a row's checkpoint, serves it with real vLLM, and compares it with its formula."""

from __future__ import annotations

import asyncio
import contextlib
import io
import statistics
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fivescore import cli
from fivescore.engine.vllm import entrance
from fivescore.errors import FivescoreError, InvalidPair
from fivescore.model import reward
from fivescore.model.checkpoint import Checkpoint
from fivescore.model.token_ids import first_difference
from fivescore.scoring.proving import prove
from fivescore.serve import make_engine
from fivescore.settings import Settings
from fivescore.types import Pair as ServicePair
from tests.e2e.server import running
from tests.published.pairs import PAIRS
from tests.published.published import Published, Row, Values

TOLERANCE = 1e-4
"""The largest difference of the reward or an attribute, with a body in float32."""
LEAST_SPREAD = 0.3
"""The least standard deviation of the reward over the pairs: if less, nothing is shown."""
TOKEN_IDS = "token ids"

Answer = dict[str, Any]
"""What ``POST /score`` answers for a pair."""
Ask = Callable[[list[dict[str, object]]], Awaitable[list[Answer]]]


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
        ranks: tensor parallelism; above 1 it is a server's, else an engine in this process's
            charge, which starts sooner.
    """
    published = row.make(scratch / "source")
    how = "as it is" if direct else "imported"
    outcome = Outcome(name, row.head, how if ranks == 1 else f"{how}, {ranks} ranks")
    begin = time.perf_counter()
    folder, flags = published.source, published.direct
    if not direct:
        folder, flags = scratch / "imported", ()
        code, told = import_(published.source, folder, *published.options)
        if code != 0:
            outcome.faults.append(f"import: {told.strip().splitlines()[-1]}")
            return outcome
    assert flags is not None, f"{name} has to be imported"
    serving = _by_engine(folder, flags) if ranks == 1 else _by_server(scratch, folder, flags, ranks)
    try:
        asyncio.run(_compare(outcome, published, serving))
    except (FivescoreError, AssertionError) as error:
        outcome.faults.append(str(error).strip().splitlines()[-1])
    outcome.seconds = time.perf_counter() - begin
    return outcome


def import_(source: Path, output: Path, *options: str) -> tuple[int, str]:
    """Run ``fivescore import``: the exit status, and what it wrote to standard error."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        code = cli.main(["import", str(source), "--output", str(output), *options])
    return code, told.getvalue()


@contextlib.asynccontextmanager
async def _by_engine(folder: Path, flags: Sequence[str]) -> AsyncIterator[Ask]:
    """Render, encode and read as the service does, with its engine, proved as at a start."""
    manifest = flags[flags.index("--manifest") + 1] if "--manifest" in flags else None
    settings = Settings(model=str(folder), manifest=manifest, engine={"dtype": "float32"})
    entrance.prepare(settings)
    found = Checkpoint(settings)
    engine = await asyncio.to_thread(make_engine, settings, found.max_tokens, found.own_head)
    try:
        model = found.fit(await engine.load())
        if model.manifest.proof is not None:
            await prove(engine, model, found.samples(), model.info.name)

        async def one(ids: list[int] | InvalidPair) -> Answer:
            if isinstance(ids, InvalidPair):
                return {"error": ids.detail}
            output = await engine.encode(ids, "published")
            scored = reward.score(
                output.values, model.manifest, tokens=len(ids), cached_tokens=output.cached_tokens
            )
            values = {**scored.attributes, "reward": scored.reward}
            return {**values, "cached_tokens": scored.cached_tokens, TOKEN_IDS: ids}

        async def ask(bodies: list[dict[str, object]]) -> list[Answer]:
            pairs = [ServicePair.model_validate(body) for body in bodies]
            encoded = model.conversation.encode(pairs)
            return await asyncio.gather(*map(one, encoded))

        yield ask
    finally:
        await engine.close()


@contextlib.asynccontextmanager
async def _by_server(
    scratch: Path, folder: Path, flags: Sequence[str], ranks: int
) -> AsyncIterator[Ask]:
    ranked = ("--engine.tensor-parallel-size", str(ranks), "--engine.dtype", "float32")
    with running(scratch / "log", "--model", str(folder), *ranked, *flags) as server:
        server.until_ready()

        async def ask(bodies: list[dict[str, object]]) -> list[Answer]:
            return await asyncio.to_thread(server.score, bodies)

        yield ask


async def _compare(
    outcome: Outcome, published: Published, serving: contextlib.AbstractAsyncContextManager[Ask]
) -> None:
    wanted = [published.rendering.ids(pair) for pair in PAIRS]
    values = [None if ids is None else published.values(ids) for ids in wanted]
    read = [None if ids is None else published.read(ids) for ids in wanted]
    rewards = [one["reward"] for one in values if one is not None]
    if statistics.stdev(rewards) < LEAST_SPREAD:
        outcome.faults.append("the reward hardly depends on the pair: nothing is shown")
    principled = published.rendering.principle
    bodies = [pair.body | ({"principle": pair.principle} if principled else {}) for pair in PAIRS]
    places = range(len(PAIRS))
    async with serving as ask:
        # Every second pair alone, then all at once, so half of them with a cached prefix.
        alone = {place: (await ask([bodies[place]]))[0] for place in places[::2]}
        batch = dict(enumerate(await ask(bodies)))
        cached = {place: (await ask([bodies[place]]))[0] for place in places}
    for way, answers in (("alone", alone), ("in a batch", batch), ("cached", cached)):
        for place, answer in answers.items():
            outcome.faults += [
                f"pair {place} {way}: {fault}"
                for fault in _faults(outcome, answer, read[place], values[place])
            ]
    if not any(answer.get("cached_tokens") for answer in cached.values()):
        outcome.faults.append("no pair had a cached prefix")


def _faults(
    outcome: Outcome, answer: Answer, wanted: list[int] | None, expected: Values | None
) -> Iterator[str]:
    if wanted is None or expected is None or "error" in answer:
        if expected is not None or "error" not in answer:
            yield f"{answer} for {expected}"
        return
    ours = answer.get(TOKEN_IDS, wanted)
    if (at := first_difference(wanted, ours)) is not None:
        around = slice(max(at - 2, 0), at + 4)
        yield f"token {at}: published {wanted[around]}, ours {ours[around]}"
        return
    found = difference(answer, expected)
    outcome.largest = max(outcome.largest, found)
    if not found <= TOLERANCE:
        yield f"{ {name: answer.get(name) for name in expected} } for {expected}"


def difference(answer: Mapping[str, Any], expected: Values) -> float:
    """The largest difference of what the formula gives; infinite where the answer lacks it."""
    return max(
        abs(answer[name] - value) if name in answer else float("inf")
        for name, value in expected.items()
    )


def table(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """The lines of a table in markdown, one after another."""
    yield "| row | head | served | largest difference | seconds |"
    yield "|---|---|---|---|---|"
    for outcome in outcomes:
        yield outcome.line
