"""vLLM's AsyncLLM as a scoring engine."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import logging
import math
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from vllm import __version__
from vllm.config import VllmConfig
from vllm.envs import VLLM_ENGINE_READY_TIMEOUT_S
from vllm.inputs.engine import tokens_input
from vllm.outputs import PoolingRequestOutput
from vllm.platforms import current_platform
from vllm.usage.usage_lib import UsageContext
from vllm.utils.system_utils import set_process_title
from vllm.v1 import engine as vllm_engine
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from fivescore.engine.vllm import forkserver, internals, processes
from fivescore.engine.vllm.arguments import (
    CPU_WORKER,
    GPU_WORKER,
    OUR_WORKERS,
    cpu_kv_cache_bytes,
    cpu_step_tokens,
    engine_arguments,
)
from fivescore.engine.vllm.failures import startup_failure
from fivescore.engine.vllm.heads import RAW_SCORES, spare_the_head, with_own_head
from fivescore.engine.vllm.output import points_on, relayed
from fivescore.errors import ConfigurationError, EngineDead, EngineError, first_line
from fivescore.model.head import OwnHead
from fivescore.telemetry.logging import adopt
from fivescore.types import ModelInfo, Output

log = logging.getLogger(__name__)

RENEWAL_SECONDS = 120.0
"""Between two engines that are replaced because their KV cache may hold NaN: clients whose pairs
have no finite value must not use up the engine's restarts."""
END_SECONDS = 10.0
"""How long the processes of a killed engine may take to end before the next one starts."""
UNTRACED = {"traceparent": f"00-{1:032x}-{1:016x}-00"}
"""W3C trace context of a trace that is not recorded: its last field, the flags, is 0."""


def _patch_vllm() -> None:
    """Change what vLLM has no setting for, as far as this version lets us."""
    if internals.usable(internals.SPAWN):
        # What is imported later takes it from where it is defined.
        for module in ("v1.engine.utils", "v1.engine.coordinator", "utils.system_utils"):
            internals.replace(f"vllm.{module}", "get_mp_context", forkserver.context)
    if current_platform.is_cpu() and internals.usable(internals.SUBPROCESS):
        # To keep CUDA out of this process, vLLM asks another what a model's class can do, and keeps
        # the answer in its cache: ten seconds for each of two classes, at the first start in a
        # container.
        registry = "vllm.model_executor.models.registry"
        internals.replace(registry, "_run_in_subprocess", lambda fn: fn())


if lacking := internals.missing(internals.STOP):
    raise ConfigurationError(
        f"vLLM {__version__} has no {', '.join(lacking)}: {internals.STOP}; install the version"
        " that fivescore names, pip install 'fivescore[cpu]' or 'fivescore[gpu]'"
    )
_patch_vllm()


def preload() -> None:
    """In the fork server: what an engine imports beside this module, and a name to be known by."""
    worker = CPU_WORKER if current_platform.is_cpu() else GPU_WORKER
    importlib.import_module(worker.rpartition(".")[0])
    set_process_title("ForkServer", prefix="fivescore")


class _Answer(asyncio.Future[PoolingRequestOutput | Exception]):
    """The answer to one request; vLLM puts outputs and errors into it as into a queue."""

    def put(self, output: PoolingRequestOutput | Exception) -> None:
        if not self.done():
            self.set_result(output)


_Ask = Callable[[str | None], Awaitable[PoolingRequestOutput]]
"""Computes one sequence; what it reads of the prefix cache has the salt that it is given."""


class VllmEngine:
    """One vLLM engine, pooling runner, LAST pooling, no activation, head in float32.

    Args:
        model: a folder or hub id of a checkpoint for sequence classification.
        options: vLLM's engine arguments by their names, as ``vllm serve`` spells them.
        head: the manifest's head; None where it is one linear layer, which vLLM builds.
        max_tokens: the longest sequence that will be asked for; None leaves it to the model.

    Raises:
        ConfigurationError: an option that vLLM does not know or that fivescore decides; or a head
            that this vLLM cannot put on the model's body.
    """

    def __init__(
        self,
        model: str,
        options: Mapping[str, Any],
        *,
        head: OwnHead | None = None,
        revision: str | None = None,
        max_tokens: int | None = None,
        trust_remote_code: bool = False,
        otlp_traces_endpoint: str | None = None,
    ) -> None:
        self._model = model
        defaults = {
            "revision": revision,
            "tokenizer_revision": revision,
            "trust_remote_code": trust_remote_code,
            "max_model_len": max_tokens,
            "otlp_traces_endpoint": otlp_traces_endpoint,
        }
        self.arguments = engine_arguments(model, options, defaults)
        if head is not None:
            self.arguments.hf_overrides = with_own_head(self.arguments, head)
        self._engine: AsyncLLM | None = None
        self._processes = processes.Group()
        self._numbers = itertools.count()
        self._closed = False
        self._salt: str | None = None
        """What requests share of the prefix cache has the same salt."""
        self._zeroes_blocks = False
        self._spoiled = False
        self._direct = internals.usable(internals.ENCODE)
        internals.usable(internals.TRACK)  # the workers look again

    _renewed = -math.inf
    """When an engine of this process was last replaced for its KV cache."""

    async def load(self) -> ModelInfo:
        with relayed() as output:
            try:
                config = await asyncio.to_thread(self._load)
                await self._warm_up()
                self._look_for_internals()
                await self._warm_up_ranks(config.parallel_config.data_parallel_size)
                self._zeroes_blocks = await self._ask_for_zeroing()
            except EngineDead:
                raise
            except Exception as error:
                log.debug("the engine did not start", exc_info=True)
                own = _own_cause(error)
                cause = await asyncio.to_thread(output.cause, waits=points_on(own)) or own
                raise ConfigurationError(startup_failure(self._model, cause)) from error
            await asyncio.to_thread(output.release)
        adopt("vllm")  # only now: until here the relay recognises vLLM's lines by their format
        return _describe(self._model, config)

    def _look_for_internals(self) -> None:
        """The attributes that only a running engine has; without them ``encode`` goes in full."""
        for name in ("output_processor", "engine_core"):
            if self._direct and not hasattr(self._engine, name):
                log.warning("AsyncLLM.%s is not in this version, so %s", name, internals.ENCODE)
                self._direct = False

    async def _warm_up_ranks(self, count: int) -> None:
        """Send a sequence to each rank after the first.

        Raises:
            ConfigurationError: this vLLM has no way to say which rank computes a sequence.
        """
        if count > 1 and not self._direct:
            raise ConfigurationError(
                f"--engine.data-parallel-size {count}: {internals.ENCODE}, and so no rank can be"
                " chosen: use one server for each device"
            )
        async with asyncio.timeout(VLLM_ENGINE_READY_TIMEOUT_S):
            await asyncio.gather(*(self.encode([0], "warm-up", rank=n) for n in range(1, count)))

    async def _ask_for_zeroing(self) -> bool:
        """Whether KV cache blocks are zeroed before a sequence gets them: see ``zeroing.py``."""
        worker = self.arguments.worker_cls
        if self._engine is None:
            return False
        if (
            worker in OUR_WORKERS
            and hasattr(self._engine, "collective_rpc")
            and all(await self._engine.collective_rpc("zeroes_blocks"))
        ):
            return True
        log.warning("KV cache blocks are not zeroed (worker-cls %s), so %s", worker, internals.ZERO)
        return False

    async def _warm_up(self) -> None:
        """Send one sequence all of vLLM's own way, which ``encode`` makes shorter: it checks the
        parameters against the model and starts the task that reads answers.

        Raises:
            EngineDead: the engine was closed while it was loading.
            TimeoutError: it did not answer within VLLM_ENGINE_READY_TIMEOUT_S.
        """
        if self._engine is None:
            raise EngineDead("the engine was closed while it was loading")
        answers = self._engine.encode(
            tokens_input([0]), RAW_SCORES, "warm-up", trace_headers=self._untraced()
        )
        try:
            async with asyncio.timeout(VLLM_ENGINE_READY_TIMEOUT_S):
                async for _ in answers:
                    pass
        except TimeoutError as error:
            raise TimeoutError(
                f"no answer to a first sequence within {VLLM_ENGINE_READY_TIMEOUT_S} s"
                " (VLLM_ENGINE_READY_TIMEOUT_S)"
            ) from error

    def _untraced(self) -> Mapping[str, str] | None:
        """The headers of a sequence of no request, for which vLLM would begin a trace."""
        return UNTRACED if self.arguments.otlp_traces_endpoint else None

    def _load(self) -> VllmConfig:
        config = self.configure()
        _wait_for_those_before()
        if not self._closed:
            with self._processes.started():
                self._engine = AsyncLLM.from_vllm_config(config)
        if self._closed:  # it had no processes yet that could have been killed
            self._shut_down()
        return config

    def configure(self) -> VllmConfig:
        """The engine's whole configuration; completes ``arguments`` with what it decides."""
        arguments, on_cpu = self.arguments, current_platform.is_cpu()
        if on_cpu and arguments.enable_chunked_prefill and not arguments.max_num_batched_tokens:
            arguments.max_num_batched_tokens = cpu_step_tokens(arguments.create_model_config())
        # Without a context vLLM takes a CPU's small steps on every device.
        config = arguments.create_engine_config(UsageContext.OPENAI_API_SERVER)
        config.quant_config = spare_the_head(config.quant_config)
        if on_cpu and arguments.kv_cache_memory_bytes is None:
            arguments.kv_cache_memory_bytes = cpu_kv_cache_bytes(config)
            config.cache_config.kv_cache_memory_bytes = arguments.kv_cache_memory_bytes
        return config

    async def encode(
        self,
        token_ids: list[int],
        request_id: str,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        rank: int = 0,
        prefix: int = 0,
    ) -> Output:
        engine = self._engine
        if engine is None:
            raise EngineDead("the engine is not running")
        ask = partial(
            self._ask if self._direct else self._ask_in_full,
            engine, token_ids, request_id, trace_headers or self._untraced(), priority, rank,
        )  # fmt: skip
        try:
            output = _output(await ask(self._salt))
            if not _any_finite(output):
                output = await self._ask_again(ask, request_id)
        except EngineDeadError as error:
            raise EngineDead("the engine has stopped") from error
        except Exception as error:
            if engine.errored:  # what reads its answers has ended too, as when one rank dies
                raise EngineDead(f"the engine has stopped: {first_line(error)}") from error
            log.error("request %s: the engine failed: %s", request_id, first_line(error))
            raise EngineError(f"the engine failed on this pair: {first_line(error)}") from error
        return output

    async def _ask_again(self, ask: _Ask, request_id: str) -> Output:
        """The outputs of a sequence of which none was finite, computed without the prefix cache.

        Where a kernel's tiles are larger than a block, a NaN spoils tokens before its own, and so
        full blocks that other sequences begin with. Finite outputs now show that it was so: what
        is cached until then is not read again.
        """
        salt = f"{request_id}-{next(self._numbers)}"
        output = _output(await ask(salt))
        if _any_finite(output):
            self._salt = salt
            log.warning(
                "request %s: outputs were NaN because of another sequence, and are finite without"
                " the prefix cache: it is not read any more, a new one begins", request_id
            )  # fmt: skip
        if not self._zeroes_blocks:
            self._renew(request_id)
        return output

    def _renew(self, request_id: str) -> None:
        """Have this engine replaced, unless that was done a short time ago."""
        now = time.monotonic()
        if now - VllmEngine._renewed < RENEWAL_SECONDS:
            return
        VllmEngine._renewed, self._spoiled = now, True
        log.warning("request %s: outputs were NaN or infinite, so this engine is replaced: other"
                    " sequences could read such values from its KV cache", request_id)  # fmt: skip

    async def _ask(
        self,
        engine: AsyncLLM,
        token_ids: list[int],
        request_id: str,
        trace_headers: Mapping[str, str] | None,
        priority: int,
        rank: int,
        cache_salt: str | None,
    ) -> PoolingRequestOutput:
        """Do what ``AsyncLLM.encode`` does without its checks, which the ids have passed, and
        without a generator and a queue per pair: ``docs/performance.md`` has what those take."""
        request = vllm_engine.EngineCoreRequest(
            request_id=f"{request_id}-{next(self._numbers)}",  # clients may repeat theirs
            prompt_token_ids=token_ids,
            mm_features=None,
            sampling_params=None,
            pooling_params=RAW_SCORES,
            arrival_time=time.time(),
            lora_request=None,
            cache_salt=cache_salt,
            data_parallel_rank=rank,
            priority=priority,
            trace_headers=trace_headers,
            external_req_id=request_id,
        )
        answer = _Answer()
        try:
            engine.output_processor.add_request(request, None, queue=answer)
            await engine.engine_core.add_request_async(request)
            output = await answer
        except asyncio.CancelledError:
            await engine.abort(request.request_id, internal=True)
            raise
        if isinstance(output, Exception):
            raise output
        return output

    async def _ask_in_full(
        self,
        engine: AsyncLLM,
        token_ids: list[int],
        request_id: str,
        trace_headers: Mapping[str, str] | None,
        priority: int,
        rank: int,
        cache_salt: str | None,
    ) -> PoolingRequestOutput:
        """The same through ``AsyncLLM.encode``, to which all ranks are one."""
        answers = engine.encode(
            tokens_input(token_ids, cache_salt=cache_salt),
            RAW_SCORES,
            f"{request_id}-{next(self._numbers)}",
            trace_headers=trace_headers,
            priority=priority,
        )
        async for output in answers:
            found = output
        return found

    @property
    def alive(self) -> bool:
        return self._engine is not None and not self._engine.errored and not self._spoiled

    def kill(self) -> None:
        if self._engine is None:
            return
        for process in self._processes.children:
            if (ended := _how_ended(process.exitcode)) is not None:
                log.error("the engine's process %s ended by %s", process.pid, ended)
        self._processes.kill()
        # What notices a death may be stopped by ``close`` before it has told whoever waits.
        fail = internals.instance_has(self._engine, "output_processor.propagate_error")
        if fail is not None:
            fail(EngineDeadError())

    async def close(self) -> None:
        self._closed = True
        if self._engine is not None:
            await asyncio.to_thread(self._shut_down)
        else:  # still loading: with its processes the load ends; asked to, they would load first
            self._processes.kill()

    def _shut_down(self) -> None:
        engine, self._engine = self._engine, None
        try:
            if engine is not None:
                engine.shutdown()
        finally:
            self._processes.kill()  # whatever of them is left


def _output(found: PoolingRequestOutput) -> Output:
    return Output(found.outputs.data.reshape(-1).tolist(), found.num_cached_tokens or 0)


def _any_finite(output: Output) -> bool:
    """Whether the last hidden state was finite: a NaN in it is in all outputs. Where some are not
    finite, the head's own weights are the cause."""
    return any(map(math.isfinite, output.values))


def _wait_for_those_before() -> None:
    """Two engines have no room beside each other.

    Raises:
        EngineDead: a process of one that was killed does not end.
    """
    if left := processes.left(END_SECONDS):
        raise EngineDead(
            f"the engine before was killed, and its process {', '.join(map(str, left))} does not"
            f" end within {END_SECONDS:g} s: a driver or a disk may keep it"
        )


def _how_ended(status: int | None) -> str | None:
    """In words, with what an operator may not know; None where it has not ended, or nobody knows.

    Args:
        status: as ``multiprocessing.Process.exitcode``.
    """
    if status is None or status == forkserver.UNKNOWN_STATUS:
        return None
    if status == -signal.SIGKILL:
        return (
            "SIGKILL: somebody killed it, or the kernel for want of memory (its own log, or"
            " oom_kill in the cgroup's memory.events, says so)"
        )
    return f"exit status {status}" if status >= 0 else signal.strsignal(-status) or f"{-status}"


def _describe(model: str, config: VllmConfig) -> ModelInfo:
    cache, scheduler, settings = config.cache_config, config.scheduler_config, config.model_config
    for name, on in (
        ("prefix caching", cache.enable_prefix_caching),
        ("chunked prefill", scheduler.enable_chunked_prefill),
    ):
        if not on:
            log.warning("%s is off: expect less throughput", name)
    return ModelInfo(
        name=model,
        outputs=settings.hf_config.num_labels,
        max_tokens=settings.max_model_len,
        vocab_size=settings.get_vocab_size(),
        dtype=str(settings.dtype).removeprefix("torch."),
        device=current_platform.get_device_name(),
        engine=f"vllm {__version__}",
        quantization=_quantization(config),
        step_sequences=scheduler.max_num_seqs,
        step_tokens=scheduler.max_num_batched_tokens,
        ranks=config.parallel_config.data_parallel_size,
    )


def _quantization(config: VllmConfig) -> str | None:
    weights, cache = config.model_config.quantization, str(config.cache_config.cache_dtype)
    kinds = [str(weights)] if weights else []
    if cache.startswith(("fp8", "int8")):
        kinds.append(f"{cache} KV cache")
    return ", ".join(kinds) or None


def _own_cause(error: BaseException) -> str:
    """What the exception that started the chain of ``error`` says."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
