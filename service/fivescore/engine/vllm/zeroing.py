"""Keeps what a KV cache block held before from every sequence that gets the block.

Attention reads whole blocks and multiplies what lies behind a sequence's last token by 0. That is
right for whatever was there, except NaN and infinity, of which it makes NaN. Only the last block
that a sequence is given in a step can have tokens behind its end: that one is zeroed beforehand.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch

from fivescore.engine.vllm import internals
from fivescore.errors import first_line

log = logging.getLogger("vllm.fivescore.zeroing")  # the server reads the level of vLLM's lines


class Zeroing:
    """Mixed into a class of vLLM's workers, before it."""

    model_runner: Any
    vllm_config: Any
    _zeroes = False
    _ours = False
    """Whether it is this class that zeroes, and not vLLM, which does so for some models."""

    def initialize_from_config(self, kv_cache_config: Any) -> None:
        """Also decides whether blocks are zeroed, and makes ready for it."""
        super().initialize_from_config(kv_cache_config)  # type: ignore[misc]
        if internals.missing(internals.ZERO) or self.vllm_config.kv_transfer_config is not None:
            return  # blocks that come from elsewhere are full when they are scheduled first
        if kv_cache_config.needs_kv_cache_zeroing:
            self._zeroes = True
            return
        try:
            self._zeroes = self._ours = self._prepare(kv_cache_config.num_blocks)
        except Exception as error:  # without it the model can be served all the same
            log.warning("KV cache blocks cannot be zeroed: %s", first_line(error))

    def zeroes_blocks(self) -> bool:
        """Whether no sequence sees what its blocks held before; asked by ``collective_rpc``."""
        return self._zeroes

    def execute_model(self, scheduler_output: Any) -> Any:
        """One step of the engine."""
        if self._ours and (blocks := list(last_blocks(scheduler_output))):
            self._zero(blocks, scheduler_output)
        return super().execute_model(scheduler_output)  # type: ignore[misc]

    def _prepare(self, num_blocks: int) -> bool:
        raise NotImplementedError

    def _zero(self, blocks: list[int], scheduler_output: Any) -> None:
        raise NotImplementedError


class CpuZeroing(Zeroing):
    """Zeroes by torch: vLLM's way on a CPU is a loop over blocks and layers."""

    def _prepare(self, num_blocks: int) -> bool:
        caches = self.model_runner.kv_caches
        return all(isinstance(one, torch.Tensor) and len(one) == num_blocks for one in caches)

    def _zero(self, blocks: list[int], scheduler_output: Any) -> None:
        index = torch.tensor(blocks)
        for cache in self.model_runner.kv_caches:
            cache.index_fill_(0, index, 0)


class GpuZeroing(Zeroing):
    """Has vLLM's own kernel zero the blocks, as it does for models that need it anyway."""

    def _prepare(self, num_blocks: int) -> bool:
        internals.prepare_zeroing(self.model_runner)
        return True

    def _zero(self, blocks: list[int], scheduler_output: Any) -> None:
        scheduler_output.new_block_ids_to_zero = blocks


def last_blocks(scheduler_output: Any) -> Iterator[int]:
    """The last block that each sequence is given in a step, of each group of layers.

    A sequence's other new blocks are filled whole in the step that they are given for.
    """
    given = [one.block_ids for one in scheduler_output.scheduled_new_reqs]
    given += scheduler_output.scheduled_cached_reqs.new_block_ids
    for groups in given:
        for blocks in groups or ():
            if blocks:
                yield blocks[-1]
