"""Scenario 2d: the model's weights are replaced on disk, and then the engine dies."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file

from fivescore.settings import DEMO
from tests.faults.asking import Asker
from tests.faults.bench import FLAGS, Bench
from tests.faults.known import Known, Pairs
from tests.faults.load import batches_of
from tests.faults.result import Result, Tally, at_least, at_most, only, total
from tests.faults.target import LOOK_SECONDS, Target

BATCH = 16
WEIGHTS, HEAD = "model.safetensors", "score.weight"
FACTOR = 1.5
"""The other head is so many times this one: every score is another one."""
NAMED = (WEIGHTS, "was changed since the model was loaded")


async def replaced(bench: Bench) -> Result:
    """The engine is killed, and its weights are others by then: no score is of those until the
    service is started again, and then the digest says so."""
    await bench.close()
    folder, known = _model(bench.folder), await bench.known(bench.scale.killed_pairs)
    target = bench.start(*FLAGS, "--model", str(folder))
    try:
        await target.wait_ready()
        digest = await _digest(target)
        tally, inflight = await _lose(target, folder, known)
        status = await target.exit_status()
        last = target.server.tail(1)
        notes = [f"the last line does not name {word!r}: {last}" for word in NAMED
                 if word not in last]  # fmt: skip
        bounds = [
            only(tally, "engine_dead"),
            at_least("pairs in flight at the kill", inflight, 1),
            at_least("exit status", status, 1),
            at_most("exit status", status, 1),
        ]
        if bench.scale.name == "full":
            await target.restart()
            await target.wait_ready()
            others = await asyncio.to_thread(Pairs(folder).known, len(known))
            async with Asker(target.url) as asker:
                again = (await asker.ask(others)).tally
            bounds += [only(again), at_most("equal digests", await _digest(target) == digest, 0)]
            tally = total([tally, again])
    finally:
        await target.stop()
    return Result(
        f"other weights on disk, then kill -9 of the engine, with {len(known)} pairs accepted"
        + ("; started again" if bench.scale.name == "full" else ""),
        tally, bounds, notes=notes,
    )  # fmt: skip


async def _lose(target: Target, folder: Path, known: Sequence[Known]) -> tuple[Tally, float]:
    """How the pairs ended, and those that came until nobody listened; and how many the engine had
    at the kill."""
    async with Asker(target.url) as asker:
        asked = [asyncio.create_task(asker.ask(batch)) for batch in batches_of(known, BATCH)]

        async def working() -> bool:
            return await target.metric("vllm:num_requests_running") > 0

        await target.until("the engine works", working)
        inflight = await target.metric("fivescore_inflight_pairs")
        _replace_weights(folder)
        target.engine().send_signal(signal.SIGKILL)
        tally = total(answer.tally for answer in await asyncio.gather(*asked))
        while target.running:
            late = (await asker.ask(known[:1])).tally
            if not late.lost:  # as it is when nobody listens any more
                tally.add(late)
            await asyncio.sleep(LOOK_SECONDS)
    return tally, inflight


def _model(folder: Path) -> Path:
    """The demo without its proof, which would refuse other weights by itself."""
    model = Path(shutil.copytree(DEMO, folder / "replaced"))
    manifest = json.loads((model / "reward.json").read_text())
    manifest.pop("proof")
    (model / "reward.json").write_text(json.dumps(manifest))
    return model


def _replace_weights(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    other = folder / f"{WEIGHTS}.new"
    save_file({**tensors, HEAD: tensors[HEAD] * FACTOR}, other, {"format": "pt"})
    os.replace(other, folder / WEIGHTS)


async def _digest(target: Target) -> str:
    answer = await asyncio.to_thread(target.server.http.get, "/manifest")
    return str(answer.json()["digest"])
