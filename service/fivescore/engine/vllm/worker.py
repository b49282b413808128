"""vLLM's worker on a CPU, which computes with as many threads as there are cores for them, and
zeroes KV cache blocks."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from functools import partial
from typing import Any

import torch
from torch import set_num_threads  # vLLM's worker puts another function in its place

# Before whatever else of vLLM's worker, as it says itself.
from vllm.v1.worker.cpu_worker import CPUWorker  # isort: skip

from fivescore.engine.vllm.loading import Tracked
from fivescore.engine.vllm.threads import Threads, most_threads, sample, usable_cores
from fivescore.engine.vllm.zeroing import CpuZeroing

log = logging.getLogger("vllm.fivescore.threads")  # the server reads the level of vLLM's lines

SILENT_SECONDS = 60.0
"""Between two lines about fewer threads: a program that comes and goes must not fill the log."""


class Worker(Tracked, CpuZeroing, CPUWorker):  # type: ignore[misc]  # vllm is Any to mypy
    """What ``worker_cls`` of vLLM's options names. Each rank of tensor parallelism has one."""

    def init_device(self) -> None:
        """Also decides how many threads compute, now and from then on."""
        cores = usable_cores()  # before OpenMP binds this thread to one of them
        super().init_device()
        self._most = most_threads(
            os.environ.get("OMP_NUM_THREADS", ""),
            torch.get_num_threads(),
            self.parallel_config.world_size,
        )
        self._said = -SILENT_SECONDS
        self._watched: Any = contextlib.nullcontext
        set_num_threads(self._most)
        if self._most == 1:
            return
        try:
            sample(cores)
        except OSError as error:
            log.warning("always %d threads: the kernel does not count waits: %s", self._most, error)
        else:
            self._watched = Threads(self._most, self._use, partial(sample, cores)).step

    def execute_model(self, scheduler_output: Any) -> Any:
        with self._watched():
            return super().execute_model(scheduler_output)

    def _use(self, number: int) -> None:
        set_num_threads(number)
        now = time.monotonic()
        if number < self._most and now - self._said >= SILENT_SECONDS:
            self._said = now
            log.warning(
                "computing with %d of %d threads until other programs leave the cores free",
                number,
                self._most,
            )
