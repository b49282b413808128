"""The blocks that a step fills in part are zeroed before it, and no others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fivescore.engine.vllm import internals, zeroing

BLOCKS = 12


def step(new: list[Any], cached: list[Any]) -> SimpleNamespace:
    """A step of vLLM's scheduler, of the blocks that sequences are given in it."""
    return SimpleNamespace(
        scheduled_new_reqs=[SimpleNamespace(block_ids=ids) for ids in new],
        scheduled_cached_reqs=SimpleNamespace(new_block_ids=cached),
        new_block_ids_to_zero=None,
    )


STEP = step(new=[([7, 3],), ([5], [6])], cached=[([2, 9],), None, ([],)])
"""Two new sequences, the second with two groups of layers, and three that go on."""


class Base:
    """What the mixin asks of vLLM's worker."""

    def __init__(self, connector: object = None) -> None:
        self.vllm_config = SimpleNamespace(kv_transfer_config=connector)
        caches: list[Any] = [torch.full((BLOCKS, 2, 4), torch.nan) for _ in range(3)]
        self.model_runner = SimpleNamespace(kv_caches=caches)
        self.model_runner._init_kv_zero_meta = lambda: self.steps.append("ready")
        self.steps: list[object] = []

    def initialize_from_config(self, kv_cache_config: object) -> None:
        pass

    def execute_model(self, scheduler_output: Any) -> str:
        self.steps.append(scheduler_output.new_block_ids_to_zero)
        return "done"


class Cpu(zeroing.CpuZeroing, Base):
    pass


class Gpu(zeroing.GpuZeroing, Base):
    pass


def ready(worker: Any, by_vllm: bool = False) -> Any:
    worker.initialize_from_config(
        SimpleNamespace(num_blocks=BLOCKS, needs_kv_cache_zeroing=by_vllm)
    )
    return worker


def test_a_sequences_last_new_block_is_zeroed_in_every_layer() -> None:
    worker = ready(Cpu())
    assert worker.zeroes_blocks()
    assert worker.execute_model(STEP) == "done"
    for cache in worker.model_runner.kv_caches:
        zeroed = {i for i in range(BLOCKS) if torch.equal(cache[i], torch.zeros(2, 4))}
        assert zeroed == {3, 5, 6, 9}
        assert cache[[7, 2]].isnan().all()


def test_on_a_gpu_vllms_own_kernel_is_told_the_blocks() -> None:
    worker = ready(Gpu())
    assert worker.zeroes_blocks()
    worker.execute_model(step(new=[([7, 3],)], cached=[]))
    worker.execute_model(step(new=[], cached=[]))
    assert worker.steps == ["ready", [3], None]


@pytest.mark.parametrize("kind", [Cpu, Gpu])
def test_what_vllm_zeroes_itself_is_left_to_it(kind: type[Any]) -> None:
    worker = ready(kind(), by_vllm=True)
    assert worker.zeroes_blocks()
    worker.execute_model(STEP)
    assert worker.steps == [None]
    assert worker.model_runner.kv_caches[0].isnan().all()


def test_a_worker_that_cannot_zero_says_so_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    states = Cpu()
    states.model_runner.kv_caches.append([torch.zeros(2)])  # of layers without blocks
    broken = Gpu()
    del broken.model_runner._init_kv_zero_meta
    workers = [ready(states), ready(broken), ready(Cpu(connector=object()))]
    monkeypatch.setattr(internals, "missing", lambda without: ["a name"])
    for worker in [*workers, ready(Cpu())]:
        assert not worker.zeroes_blocks()
        assert worker.execute_model(STEP) == "done"
        assert worker.steps == [None]
