"""vLLM's worker on a GPU, which zeroes KV cache blocks."""

from __future__ import annotations

from vllm.v1.worker.gpu_worker import Worker as GpuWorker

from fivescore.engine.vllm.loading import Tracked
from fivescore.engine.vllm.zeroing import GpuZeroing


class Worker(Tracked, GpuZeroing, GpuWorker):  # type: ignore[misc]  # vllm is Any to mypy
    """What ``worker_cls`` of vLLM's options names. Each rank of tensor parallelism has one."""
