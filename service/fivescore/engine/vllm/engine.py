"""vLLM's AsyncLLM as a scoring engine. The only module that imports vllm."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import itertools
import logging
import multiprocessing
import os
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import psutil
from vllm import PoolingParams, __version__
from vllm.config import ModelConfig, PoolerConfig, VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.envs import VLLM_ENGINE_READY_TIMEOUT_S
from vllm.inputs.engine import tokens_input
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig
from vllm.model_executor.models import registry
from vllm.outputs import PoolingRequestOutput
from vllm.platforms import current_platform
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.utils.system_utils import set_process_title
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine import utils as engine_utils
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from fivescore.engine.vllm import forkserver
from fivescore.engine.vllm.output import relayed
from fivescore.engine.vllm.threads import usable_count
from fivescore.errors import ConfigurationError, EngineDead, EngineError, first_line
from fivescore.telemetry.logging import adopt
from fivescore.telemetry.metrics import SECONDS
from fivescore.types import ModelInfo, Output

log = logging.getLogger(__name__)

RAW_SCORES = PoolingParams(task="classify", use_activation=False)
UNTRACED = {"traceparent": f"00-{1:032x}-{1:016x}-00"}
"""W3C trace context of a trace that is not recorded: its last field, the flags, is 0."""
HEAD = "score"
"""The layer of the outputs, in vLLM's adapter."""
CPU_WORKER = "fivescore.engine.vllm.worker.Worker"
OURS = ("model", "runner", "pooler-config", "otlp-traces-endpoint")
"""Engine arguments that fivescore itself decides."""
CPU_BLOCK_SIZE = 32
"""Tokens a prefix-cache block: prompts are shared in whole blocks; vLLM's CPU default is 128."""
CPU_STEP_TOKENS = (768, 4096)
"""The fewest and the most of a step, whatever the model's size. A single pair waits for the steps
of a large job, and with vLLM's 2048 too long; of a tiny model a step of 768 is mostly overhead."""
CPU_STEP_WORK = 6e8
"""Weights times tokens that a step should have, between those: 768 tokens of the demo."""
HISTOGRAM_BUCKETS = {"request_latency": [0.0005, 0.001, 0.0025, *SECONDS]}
"""Seconds; vLLM's own buckets start at 0.3 s, and most pairs take much less."""
LEAST_KV_CACHE_BYTES = 256 * 2**20
KV_CACHE_SEQUENCES = 8
"""Sequences of the model's full length that the CPU's default KV cache holds."""

engine_utils.get_mp_context = forkserver.context  # vLLM has no setting for it
if current_platform.is_cpu():
    # To keep CUDA out of this process, vLLM asks another what a model's class can do, and keeps the
    # answer in its cache: ten seconds for each of two classes, at the first start in a container.
    registry._run_in_subprocess = lambda ask: ask()


def preload() -> None:
    """In the fork server: what an engine imports beside this module, and a name to be known by."""
    on_cpu = current_platform.is_cpu()
    importlib.import_module(
        CPU_WORKER.rpartition(".")[0] if on_cpu else "vllm.v1.worker.gpu_worker"
    )
    set_process_title("ForkServer", prefix="fivescore")


class _Answer(asyncio.Future[PoolingRequestOutput | Exception]):
    """Of one request; to vLLM it is the queue that outputs and errors go to."""

    def put(self, output: PoolingRequestOutput | Exception) -> None:
        if not self.done():
            self.set_result(output)


class VllmEngine:
    """One vLLM engine, pooling runner, LAST pooling, no activation, head in float32.

    Args:
        model: a folder or hub id of a checkpoint for sequence classification.
        options: vLLM's engine arguments by their names, as ``vllm serve`` spells them.
        max_tokens: the longest sequence that will be asked for; None leaves it to the model.

    Raises:
        ConfigurationError: an option that vLLM does not know or that fivescore decides.
    """

    def __init__(
        self,
        model: str,
        options: Mapping[str, Any],
        *,
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
        self.arguments = _arguments(model, options, defaults)
        self._engine: AsyncLLM | None = None
        self._numbers = itertools.count()
        self._closed = False

    async def load(self) -> ModelInfo:
        info = await asyncio.to_thread(self._load)
        await self._warm_up()
        return info

    async def _warm_up(self) -> None:
        """One sequence goes all of vLLM's own way, which ``encode`` makes shorter: it checks the
        parameters against the model and starts the task that reads answers."""
        if self._engine is None:
            raise EngineDead("the engine was closed while it was loading")
        headers = UNTRACED if self.arguments.otlp_traces_endpoint else None
        answers = self._engine.encode(
            tokens_input([0]), RAW_SCORES, "warm-up", trace_headers=headers
        )
        try:
            async with asyncio.timeout(VLLM_ENGINE_READY_TIMEOUT_S):
                async for _ in answers:
                    pass
        except TimeoutError as error:
            cause = f"no answer to a first sequence within {VLLM_ENGINE_READY_TIMEOUT_S} s"
            raise _startup_error(self._model, f"{cause} (VLLM_ENGINE_READY_TIMEOUT_S)") from error
        except Exception as error:
            raise _startup_error(self._model, first_line(error.__cause__ or error)) from error

    def _load(self) -> ModelInfo:
        with relayed() as output:
            try:
                config = self.configure()
                if not self._closed:
                    self._engine = AsyncLLM.from_vllm_config(config)
            except Exception as error:
                log.debug("the engine did not start", exc_info=True)
                raise _startup_error(self._model, output.cause() or first_line(error)) from error
            output.release()
        if self._closed:  # when it had no processes yet to be killed
            self._shut_down()
        adopt("vllm")  # only now: until here the relay knows vLLM's lines by their format
        return _describe(self._model, config)

    def configure(self) -> VllmConfig:
        """The engine's whole configuration; completes ``arguments`` with what it decides."""
        arguments, on_cpu = self.arguments, current_platform.is_cpu()
        if on_cpu and arguments.enable_chunked_prefill and not arguments.max_num_batched_tokens:
            arguments.max_num_batched_tokens = _cpu_step_tokens(arguments.create_model_config())
        # Without a context vLLM takes a CPU's small steps on every device.
        config = arguments.create_engine_config(UsageContext.OPENAI_API_SERVER)
        config.quant_config = _spare_the_head(config.quant_config)
        if on_cpu and arguments.kv_cache_memory_bytes is None:
            arguments.kv_cache_memory_bytes = _cpu_kv_cache_bytes(config)
            config.cache_config.kv_cache_memory_bytes = arguments.kv_cache_memory_bytes
        return config

    async def encode(
        self,
        token_ids: list[int],
        request_id: str,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
    ) -> Output:
        if self._engine is None:
            raise EngineDead("the engine is not running")
        try:
            found = await self._ask(self._engine, token_ids, request_id, trace_headers, priority)
        except EngineDeadError as error:
            raise EngineDead("the engine has stopped") from error
        except Exception as error:
            log.error("request %s: the engine failed: %s", request_id, first_line(error))
            raise EngineError(f"the engine failed on this pair: {first_line(error)}") from error
        return Output(found.outputs.data.reshape(-1).tolist(), found.num_cached_tokens or 0)

    async def _ask(
        self,
        engine: AsyncLLM,
        token_ids: list[int],
        request_id: str,
        trace_headers: Mapping[str, str] | None,
        priority: int,
    ) -> PoolingRequestOutput:
        """What ``AsyncLLM.encode`` does, without its checks, which the ids have passed, and without
        a generator and a queue a pair: ``docs/performance.md`` has what that takes."""
        request = EngineCoreRequest(
            request_id=f"{request_id}-{next(self._numbers)}",  # clients may repeat theirs
            prompt_token_ids=token_ids,
            mm_features=None,
            sampling_params=None,
            pooling_params=RAW_SCORES,
            arrival_time=time.time(),
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
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

    @property
    def alive(self) -> bool:
        return self._engine is not None and not self._engine.errored

    def kill(self) -> None:
        if self._engine is None:
            return
        manager = self._engine.engine_core.resources.engine_manager
        for process in manager.processes if manager else ():
            _kill(process)
        # What notices a death may be stopped by ``close`` before it has told whoever waits.
        self._engine.output_processor.propagate_error(EngineDeadError())

    async def close(self) -> None:
        self._closed = True
        if self._engine is not None:
            await asyncio.to_thread(self._shut_down)
        else:  # still loading: with its processes the load ends; asked to, they would load first
            for process in multiprocessing.active_children():
                _kill(process)

    def _shut_down(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.shutdown()


def _kill(process: multiprocessing.process.BaseProcess) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):  # it may have died by itself
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()  # the ranks of tensor parallelism
        process.kill()


class _Parser(FlexibleArgumentParser):  # type: ignore[misc]  # vllm is Any to mypy
    """vLLM's own command line, except that a mistake is an exception."""

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(f"engine setting: {message.replace('--', '--engine.')}")


def _arguments(
    model: str, options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> AsyncEngineArgs:
    """The operator's options, else ``defaults``, else what fits reward models, else vLLM's."""
    arguments = _parse(model, options)
    arguments.pooler_config = PoolerConfig(pooling_type="LAST", use_activation=False)
    if isinstance(arguments.hf_overrides, dict):
        arguments.hf_overrides = {"head_dtype": "float32", **arguments.hf_overrides}
    ours = {
        "convert": "classify",
        "enable_prefix_caching": True,
        "enable_chunked_prefill": True,
        "scheduling_policy": "priority",
        "custom_histogram_buckets": HISTOGRAM_BUCKETS,
        **(_cpu_defaults(arguments) if current_platform.is_cpu() else {}),
        **defaults,
    }
    given = {name.replace("-", "_").removeprefix("no_").split(".")[0] for name in options}
    for name, value in ours.items():
        if name not in given and value is not None:
            setattr(arguments, name, value)
    return arguments


def _parse(model: str, options: Mapping[str, Any]) -> AsyncEngineArgs:
    words = ["--model", model, "--runner", "pooling"]
    for name, value in options.items():
        flag = name.replace("_", "-")
        if flag in OURS:
            raise ConfigurationError(f"--engine.{flag} is decided by fivescore: leave it out")
        text = str(value)
        if text.lower() == "false":
            words.append(f"--no-{flag}")
        else:
            words += [f"--{flag}"] if text.lower() == "true" else [f"--{flag}", text]
    parser = AsyncEngineArgs.add_cli_args(_Parser(allow_abbrev=False))
    parsed = parser.parse_args(words)
    try:
        return AsyncEngineArgs.from_cli_args(parsed)
    except Exception as error:  # it looks the model up; the libraries beneath raise many kinds
        raise ConfigurationError(f"{model}: {first_line(error)}") from error


def _cpu_defaults(args: AsyncEngineArgs) -> dict[str, Any]:
    """What pays on a CPU: see ``docs/performance.md`` for the measurements."""
    # vLLM would serve with one thread otherwise.
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_count()))
    # The engine has all cores; tokenising on several takes more of their time.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    defaults: dict[str, Any] = {
        "dtype": "float32",
        "enforce_eager": True,
        "block_size": CPU_BLOCK_SIZE,
        "worker_cls": CPU_WORKER,
    }
    if args.tensor_parallel_size * args.pipeline_parallel_size * args.data_parallel_size == 1:
        defaults["distributed_executor_backend"] = UniProcExecutor
    return defaults


def _spare_the_head(found: QuantizationConfig | None) -> QuantizationConfig | None:
    """vLLM quantises the head too where it quantises a checkpoint's weights when it loads them."""
    if found is None or found.get_name() != "online" or HEAD in found.args.ignore:
        return found
    return type(found)(dataclasses.replace(found.args, ignore=[*found.args.ignore, HEAD]))


def _cpu_step_tokens(model: ModelConfig) -> int:
    """So many that a step takes about as long for a tiny model as for a small one."""
    layers, hidden = model.get_total_num_hidden_layers(), model.get_hidden_size()
    weights = 12 * layers * hidden**2  # without embeddings: Kaplan et al. 2020, arXiv 2001.08361
    fewest, most = CPU_STEP_TOKENS
    return max(fewest, min(most, int(CPU_STEP_WORK // weights)))


def _cpu_kv_cache_bytes(config: VllmConfig) -> int:
    """Room for some sequences of the full length, within half of the free memory."""
    model = config.model_config
    token_bytes = (
        2  # keys and values
        * model.get_num_layers(config.parallel_config)
        * model.get_num_kv_heads(config.parallel_config)
        * model.get_head_size()
        * model.dtype.itemsize
    )
    wanted: int = KV_CACHE_SEQUENCES * model.max_model_len * token_bytes
    half_of_memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") // 2
    return max(LEAST_KV_CACHE_BYTES, min(wanted, half_of_memory))


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
        step_sequences=scheduler.max_num_seqs,
        step_tokens=scheduler.max_num_batched_tokens,
    )


def _startup_error(model: str, cause: str) -> ConfigurationError:
    cause = cause.removeprefix("Value error, ")
    if "KV cache" in cause or "cache blocks" in cause:
        cause = (
            "too little memory for the KV cache: raise --engine.kv-cache-memory-bytes or lower"
            f" --max-tokens ({cause})"
        )
    return ConfigurationError(f"model {model}: {cause}")
