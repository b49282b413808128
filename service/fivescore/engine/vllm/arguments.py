"""Engine options, as ``vllm serve`` spells them, become the arguments of vLLM's engine."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from typing import Any, NoReturn

from vllm.config import ModelConfig, VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.platforms import current_platform
from vllm.utils.argparse_utils import FlexibleArgumentParser

from fivescore.engine.vllm import internals
from fivescore.engine.vllm.heads import POOLING, with_float32_head
from fivescore.engine.vllm.threads import usable_count
from fivescore.errors import ConfigurationError, first_line
from fivescore.model.engine_options import combined, merged
from fivescore.telemetry.metrics import SECONDS

OURS = ("model", "runner", "pooler_config", "otlp_traces_endpoint")
"""Engine arguments that fivescore itself decides."""
ONE_MACHINE = (
    "data_parallel_rank", "data_parallel_start_rank", "data_parallel_size_local",
    "data_parallel_address", "data_parallel_rpc_port", "data_parallel_backend",
    "data_parallel_hybrid_lb", "data_parallel_external_lb",
)  # fmt: skip
"""Engine arguments that spread the ranks of one model over machines."""
CPU_WORKER = "fivescore.engine.vllm.worker.Worker"
GPU_WORKER = "fivescore.engine.vllm.gpu_worker.Worker"
OUR_WORKERS = (CPU_WORKER, GPU_WORKER)
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


class _Parser(FlexibleArgumentParser):  # type: ignore[misc]  # vllm is Any to mypy
    """vLLM's own command line, except that a mistake is an exception."""

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(f"engine setting: {message.replace('--', '--engine.')}")


def engine_arguments(
    model: str, options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> AsyncEngineArgs:
    """vLLM's arguments: the operator's options, else ``defaults``, else what suits reward models.

    Raises:
        ConfigurationError: an option that vLLM does not know or that fivescore decides.
    """
    parser = AsyncEngineArgs.add_cli_args(_Parser(allow_abbrev=False))
    given = _by_argument(parser, options)
    arguments = _parse(parser, model, given)
    arguments.pooler_config = POOLING
    arguments.hf_overrides = with_float32_head(arguments.hf_overrides)
    ours = {
        "convert": "classify",
        "enable_prefix_caching": True,
        "enable_chunked_prefill": True,
        "scheduling_policy": "priority",
        "custom_histogram_buckets": HISTOGRAM_BUCKETS,
        **(_cpu_defaults(arguments) if current_platform.is_cpu() else _gpu_defaults()),
        **defaults,
    }
    chosen = {action.dest for action, _ in given.values()}
    for name, value in ours.items():
        if name not in chosen and value is not None:
            setattr(arguments, name, value)
    return arguments


Given = dict[str, tuple[argparse.Action, Any]]
"""vLLM's description of an argument and the operator's value, by the argument's name."""


def _by_argument(parser: argparse.ArgumentParser, options: Mapping[str, Any]) -> Given:
    known = internals.flags(parser)
    found: Given = {}
    for name, value in merged(options).items():
        flag, negative = name.replace("_", "-"), False
        action = known.get(f"--{flag}") or known.get(f"-{flag}")
        if action is None:
            parser.error(f"unrecognized arguments: --{flag}")
        if action.dest in OURS:
            raise ConfigurationError(f"--engine.{flag} is decided by fivescore: leave it out")
        if action.dest in ONE_MACHINE:
            raise ConfigurationError(
                f"--engine.{flag}: all ranks of an engine run on one machine: leave it out, and"
                " start a server on each machine"
            )
        if isinstance(action, argparse.BooleanOptionalAction) and flag.startswith("no-"):
            negative = f"--{flag}" in action.option_strings
        if _is_switch(action):
            value = _boolean(flag, value) != negative
        if action.dest in found and isinstance(value, dict):
            value = combined(action.dest, found[action.dest][1], value)
        found[action.dest] = action, value
    return found


def _is_switch(action: argparse.Action) -> bool:
    return isinstance(action, argparse.BooleanOptionalAction) or action.nargs == 0


def _boolean(flag: str, value: Any) -> bool:
    word = str(value).lower()
    if word not in ("true", "false"):
        raise ConfigurationError(
            f"engine setting: --engine.{flag} is true or false, got {str(value)[:100]!r}"
        )
    return word == "true"


def _parse(parser: argparse.ArgumentParser, model: str, given: Given) -> AsyncEngineArgs:
    words = ["--model", model, "--runner", "pooling"]
    for action, value in given.values():
        words += _words(action, value)
    parsed = parser.parse_args(words)
    try:
        return AsyncEngineArgs.from_cli_args(parsed)
    except Exception as error:  # it looks the model up; the libraries beneath raise many kinds
        raise ConfigurationError(f"{model}: {first_line(error)}") from error


def _words(action: argparse.Action, value: Any) -> list[str]:
    """What a command line says for this value."""
    positive = [name for name in action.option_strings if not name.startswith("--no-")]
    flag = max(positive or action.option_strings, key=len)
    if _is_switch(action):
        if value:
            return [flag]
        negative = [name for name in action.option_strings if name.startswith("--no-")]
        return negative[:1]
    if value is True:  # a bare flag
        return [flag]
    if isinstance(value, list) and action.nargs in ("+", "*"):
        return [flag, *map(str, value)]
    if isinstance(value, dict | list):
        return [f"{flag}={json.dumps(value)}"]
    return [f"{flag}={value}"]


def _cpu_defaults(args: AsyncEngineArgs) -> dict[str, Any]:
    """What pays on a CPU: see ``docs/performance.md`` for the measurements."""
    # vLLM would serve with one thread otherwise. This is for each rank.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_count() // args.data_parallel_size)))
    # The engine has all cores; tokenising on several takes more of their time.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    defaults: dict[str, Any] = {
        "dtype": "float32",
        "enforce_eager": True,
        "block_size": CPU_BLOCK_SIZE,
    }
    if internals.usable(internals.WORKER):
        defaults["worker_cls"] = CPU_WORKER
    single = args.tensor_parallel_size * args.pipeline_parallel_size * args.data_parallel_size == 1
    if single and internals.usable(internals.UNIPROC):
        from vllm.v1.executor.uniproc_executor import UniProcExecutor

        defaults["distributed_executor_backend"] = UniProcExecutor
    return defaults


def _gpu_defaults() -> dict[str, Any]:
    if current_platform.is_cuda_alike() and not internals.missing(internals.WORKER):
        return {"worker_cls": GPU_WORKER}
    return {}


def cpu_step_tokens(model: ModelConfig) -> int:
    """So many that a step takes about as long for a tiny model as for a small one."""
    layers, hidden = model.get_total_num_hidden_layers(), model.get_hidden_size()
    weights = 12 * layers * hidden**2  # without embeddings: Kaplan et al. 2020, arXiv 2001.08361
    fewest, most = CPU_STEP_TOKENS
    return max(fewest, min(most, int(CPU_STEP_WORK // weights)))


def cpu_kv_cache_bytes(config: VllmConfig) -> int:
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
    ranks: int = config.parallel_config.data_parallel_size
    return max(LEAST_KV_CACHE_BYTES, min(wanted, half_of_memory // ranks))
