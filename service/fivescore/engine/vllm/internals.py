"""Every private or little promised part of vLLM, and of Python for vLLM's sake, that we use.

Each is looked up at the start, with the parameters that we give it. Where one is missing the engine
does without, by a slower public way, and one log line says so. Before an upgrade,
``python -m fivescore.engine.vllm.internals --against DIR`` says what has moved in an unpacked vLLM.

Nothing here imports vLLM before it is asked to: the fork server's parent imports this module.
"""

from __future__ import annotations

import argparse
import ast
import atexit
import contextlib
import importlib
import importlib.util
import inspect
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, partialmethod, reduce
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

ENCODE = "requests go through AsyncLLM.encode, which takes more time for each"
SPAWN = "engines are spawned, and start more slowly"
SUBPROCESS = "vLLM asks another process about the model's class, which takes some seconds"
WORKER = "an engine on a CPU keeps its number of threads beside other programs"
UNIPROC = "vLLM chooses how the engine runs its workers"
BIND = "a process of the engine's that is stopped (SIGSTOP) may outlive this one"
ZERO = "an engine that gave a value that is not finite is replaced, as its KV cache may keep it"
HEAD = "a model that is quantised while it loads has a quantised head"
HEADED = "only a head that is one linear layer can be served"
TRACK = "a parameter that vLLM makes and the checkpoint lacks may stay unset"
STOP = "this version of vLLM cannot be used"

SCORE_BIAS = "score.bias"
"""The parameter that vLLM makes of the checkpoint's tensor, and does not report as loaded."""


@dataclass(frozen=True)
class Internal:
    """``name`` in ``module``, the parameters or fields that we use, and what is done without it.

    ``on_instances`` marks an attribute that only objects have, so it is looked up on one.
    ``unimported`` marks a module that only the engine's processes import: elsewhere its source is
    read.
    """

    module: str
    name: str
    without: str
    takes: tuple[str, ...] = ()
    on_instances: bool = False
    unimported: bool = False

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


_LLM = "vllm.v1.engine.async_llm"
_CLIENT = "vllm.v1.engine.core_client"
_SCHEDULED = "vllm.v1.core.sched.output"
_LOADER = "vllm.model_executor.model_loader.default_loader"
REQUEST_FIELDS = (
    "request_id", "prompt_token_ids", "mm_features", "sampling_params", "pooling_params",
    "arrival_time", "lora_request", "cache_salt", "data_parallel_rank", "priority",
    "trace_headers", "external_req_id",
)  # fmt: skip
INTERNALS = (
    Internal("vllm.v1.engine", "EngineCoreRequest", ENCODE, REQUEST_FIELDS),
    Internal(_LLM, "AsyncLLM.output_processor", ENCODE, on_instances=True),
    Internal(_LLM, "AsyncLLM.engine_core", ENCODE, on_instances=True),
    Internal(_LLM, "AsyncLLM.abort", ENCODE, ("request_id", "internal")),
    Internal("vllm.v1.engine.output_processor", "OutputProcessor.add_request", ENCODE,
             ("request", "prompt", "queue")),
    Internal("vllm.v1.engine.output_processor", "OutputProcessor.propagate_error", ENCODE, ("e",)),
    Internal(_CLIENT, "AsyncMPClient.add_request_async", ENCODE, ("request",)),
    Internal("multiprocessing.util", "spawnv_passfds", BIND, ("path", "args", "passfds")),
    Internal("vllm.v1.engine.utils", "get_mp_context", SPAWN),
    Internal("vllm.v1.engine.coordinator", "get_mp_context", SPAWN),
    Internal("vllm.utils.system_utils", "get_mp_context", SPAWN),
    Internal("multiprocessing.forkserver", "_forkserver", SPAWN),
    Internal("multiprocessing.forkserver", "_forkserver._forkserver_pid", SPAWN),
    Internal("multiprocessing.forkserver", "_forkserver._stop", SPAWN),
    Internal("atexit", "_run_exitfuncs", SPAWN),
    Internal("vllm.model_executor.models.registry", "_run_in_subprocess", SUBPROCESS, ("fn",)),
    Internal("vllm.v1.executor.uniproc_executor", "UniProcExecutor", UNIPROC),
    Internal("vllm.v1.worker.cpu_worker", "CPUWorker.init_device", WORKER, unimported=True),
    Internal("vllm.v1.worker.gpu_worker", "Worker.execute_model", WORKER, ("scheduler_output",),
             unimported=True),
    Internal("vllm.v1.worker.worker_base", "WorkerBase.parallel_config", WORKER,
             on_instances=True, unimported=True),
    Internal("vllm.v1.worker.gpu_worker", "Worker.initialize_from_config", ZERO,
             ("kv_cache_config",), unimported=True),
    Internal("vllm.v1.worker.gpu_worker", "Worker.execute_model", ZERO, ("scheduler_output",),
             unimported=True),
    Internal("vllm.v1.worker.gpu_model_runner", "GPUModelRunner.kv_caches", ZERO,
             on_instances=True, unimported=True),
    Internal("vllm.v1.worker.gpu_model_runner", "GPUModelRunner._init_kv_zero_meta", ZERO,
             unimported=True),
    Internal("vllm.v1.kv_cache_interface", "KVCacheConfig.num_blocks", ZERO, unimported=True),
    Internal("vllm.v1.kv_cache_interface", "KVCacheConfig.needs_kv_cache_zeroing", ZERO,
             unimported=True),
    Internal(_SCHEDULED, "NewRequestData.block_ids", ZERO, unimported=True),
    Internal(_SCHEDULED, "CachedRequestData.new_block_ids", ZERO, unimported=True),
    Internal(_SCHEDULED, "SchedulerOutput.scheduled_new_reqs", ZERO, unimported=True),
    Internal(_SCHEDULED, "SchedulerOutput.scheduled_cached_reqs", ZERO, unimported=True),
    Internal(_SCHEDULED, "SchedulerOutput.new_block_ids_to_zero", ZERO, unimported=True),
    Internal(_LLM, "AsyncLLM.collective_rpc", ZERO, ("method",), unimported=True),
    Internal("vllm.model_executor.layers.quantization.online.base", "OnlineQuantizationConfig",
             HEAD, ("args",)),
    Internal("vllm.config.quantization", "QuantizationConfigArgs.ignore", HEAD),
    Internal("vllm.model_executor.models.registry", "_ModelRegistry.models", HEADED,
             on_instances=True),
    Internal("vllm.model_executor.models.registry", "_ModelRegistry.register_model", HEADED,
             ("model_arch", "model_cls")),
    Internal("vllm.model_executor.models.registry", "_LazyRegisteredModel.load_model_cls", HEADED),
    Internal("vllm.model_executor.models.config", "MODELS_CONFIG_MAP", HEADED),
    Internal("vllm.model_executor.models.adapters", "as_seq_cls_model", HEADED, ("cls",)),
    Internal("vllm.model_executor.layers.pooler.special", "DispatchPooler.for_seq_cls", HEADED,
             ("pooler_config", "classifier")),
    Internal("vllm.transformers_utils.config", "get_config", HEADED,
             ("model", "trust_remote_code", "revision", "code_revision", "config_format")),
    Internal(_LOADER, "DefaultModelLoader.track_weights_loading", TRACK,
             ("model", "loaded_weights", "quantized"), unimported=True),
    Internal("argparse", "ArgumentParser._option_string_actions", STOP, on_instances=True),
    Internal(_LLM, "AsyncLLM.encode", STOP,
             ("prompt", "pooling_params", "request_id", "trace_headers", "priority")),
    Internal(_LLM, "AsyncLLM.from_vllm_config", STOP, ("vllm_config",)),
    Internal(_LLM, "AsyncLLM.shutdown", STOP),
    Internal(_LLM, "AsyncLLM.errored", STOP),
    Internal("vllm.inputs.engine", "tokens_input", STOP, ("prompt_token_ids", "cache_salt")),
    Internal("vllm.pooling_params", "PoolingParams", STOP, ("task", "use_activation")),
    Internal("vllm.engine.arg_utils", "AsyncEngineArgs.add_cli_args", STOP, ("parser",)),
    Internal("vllm.engine.arg_utils", "AsyncEngineArgs.from_cli_args", STOP),
    Internal("vllm.engine.arg_utils", "AsyncEngineArgs.create_engine_config", STOP,
             ("usage_context",)),
)  # fmt: skip


def missing(without: str) -> list[str]:
    """The names, of those that have this fallback, that are not there as we use them."""
    return [str(one) for one in INTERNALS if one.without == without and not _present(one)]


def usable(without: str) -> bool:
    """Whether all that has this fallback is there; logs one line where it is not."""
    absent = missing(without)
    if absent:
        log.warning("%s is not in this version, so %s", ", ".join(absent), without)
    return not absent


def python_can_fork() -> bool:
    """Whether Python's fork server is as we use it; logs one line where not. Imports no vLLM."""
    ours = [one for one in INTERNALS if one.without == SPAWN and not one.module.startswith("vllm")]
    absent = [str(one) for one in ours if not _present(one)]
    if absent:
        log.warning("%s is not in this version, so %s", ", ".join(absent), SPAWN)
    return not absent


def replace(module: str, name: str, value: Any) -> None:
    """Put ``value`` in the place of one of vLLM's own functions."""
    setattr(importlib.import_module(module), name, value)


def wrap(module: str, name: str, function: Callable[..., Any]) -> None:
    """Put a function in the place of another, once; it is given the other one as well, first."""
    found = getattr(importlib.import_module(module), name)
    if getattr(found, "func", None) is not function:
        replace(module, name, partial(function, found))


def fork_server_pid() -> int | None:
    """The pid of Python's fork server; None where there is none."""
    server: Any = forkserver._forkserver
    pid: int | None = server._forkserver_pid
    return pid


def kill_fork_server(wait: bool = True) -> None:
    """Kill Python's fork server; by itself it ends only after it has imported vLLM."""
    server: Any = forkserver._forkserver
    pid = fork_server_pid()
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # nobody else waits for it, so it is this one
        if wait:
            server._stop()


def prepare_zeroing(model_runner: Any) -> None:
    """Let a GPU's model runner zero the blocks that a scheduler's output names."""
    model_runner._init_kv_zero_meta()


def track_every_parameter() -> None:
    """Let vLLM fail where a checkpoint does not set a parameter of an unquantised linear layer.

    vLLM does so for quantised models, and exempts these layers otherwise.
    """
    if missing(TRACK):
        return
    loader: Any = importlib.import_module(_LOADER).DefaultModelLoader
    loader.track_weights_loading = partialmethod(_tracked, loader.track_weights_loading)


def _tracked(
    loader: Any, track: Any, model: Any, loaded_weights: Any, quantized: bool = False
) -> None:
    found = loaded_weights if loaded_weights is None else {*loaded_weights, SCORE_BIAS}
    track(loader, model, found, quantized=True)


def run_exit_functions() -> None:
    """Run the functions that ``atexit`` holds, as Python does when a process ends by itself."""
    atexit._run_exitfuncs()


def flags(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """What a parser knows of each of its flags (``--name``, ``-n``)."""
    return parser._option_string_actions


def instance_has(instance: Any, path: str) -> Any:
    """The attribute of an attribute of ``instance``, or None where one is missing."""
    return reduce(lambda found, name: getattr(found, name, None), path.split("."), instance)


def _present(one: Internal) -> bool:
    if one.unimported and one.module not in sys.modules:
        package = importlib.util.find_spec("vllm")
        return package is not None and _fault(Path(str(package.origin)).parents[1], one) is None
    name = one.name.rpartition(".")[0] if one.on_instances else one.name
    try:
        found: Any = importlib.import_module(one.module)
        for part in name.split("."):
            found = _member(found, part)
    except (ImportError, AttributeError):
        return False
    return one.on_instances or set(one.takes) <= _parameters(found)


def _member(owner: Any, name: str) -> Any:
    if name in getattr(owner, "__dataclass_fields__", ()):  # may have no default
        return owner.__dataclass_fields__[name]
    return getattr(owner, name)


def _parameters(found: Any) -> set[str]:
    if hasattr(found, "__struct_fields__"):  # msgspec's
        return set(found.__struct_fields__)
    try:
        return set(inspect.signature(found).parameters)
    except (TypeError, ValueError):
        return set()


def moved(folder: Path) -> list[str]:
    """What an unpacked vLLM in ``folder`` has not, or not with the parameters that we give."""
    root = folder if folder.name != "vllm" else folder.parent
    if not (root / "vllm").is_dir():
        raise FileNotFoundError(f"{folder} holds no folder vllm")
    theirs = [one for one in INTERNALS if one.module.startswith("vllm")]
    faults = [(one, _fault(root, one)) for one in theirs]
    return [f"{one}: {fault}; without it, {one.without}" for one, fault in faults if fault]


def _fault(root: Path, one: Internal) -> str | None:
    place = root.joinpath(*one.module.split("."))
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not file.is_file():
        return "no such module"
    module = ast.parse(file.read_text())
    owner, _, member = one.name.rpartition(".")
    nodes = list(_named(module.body, owner or member))
    if owner and nodes:
        nodes = list(_members(module, nodes[0], member))
    if not nodes:
        return "no such name"
    lacking = set(one.takes) - set(_taken(module, nodes[0]))
    return f"it does not take {', '.join(sorted(lacking))}" if lacking else None


def _named(body: Sequence[ast.AST], name: str) -> Iterator[ast.AST]:
    """The statements of ``body``, also inside ``if`` and ``try``, that define or import a name."""
    for node in body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                names = [node.name]
            case ast.Import() | ast.ImportFrom():
                names = [alias.asname or alias.name for alias in node.names]
            case ast.Assign():
                names = [ast.unparse(target) for target in node.targets]
            case ast.AnnAssign():
                names = [ast.unparse(node.target)]
            case ast.If() | ast.Try():
                yield from _named(node.body, name)
                yield from _named(node.orelse, name)
                continue
            case _:
                continue
        if name in names:
            yield node


def _members(module: ast.Module, owner: ast.AST, name: str) -> Iterator[ast.AST]:
    """A class's own member, or that of a base in the same file, or what its methods assign."""
    for one in _family(module, owner):
        yield from _named(one.body, name)
        for node in ast.walk(one):
            if isinstance(node, ast.Assign | ast.AnnAssign):
                yield from _named([node], f"self.{name}")


def _family(module: ast.Module, owner: ast.AST) -> Iterator[ast.ClassDef]:
    if isinstance(owner, ast.ClassDef):
        yield owner
        for base in owner.bases:
            for found in _named(module.body, ast.unparse(base)):
                yield from _family(module, found)


def _taken(module: ast.Module, node: ast.AST) -> Iterator[str]:
    """The parameters of a function; those of a class's ``__init__``, and its fields."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        given = node.args
        yield from (one.arg for one in [*given.posonlyargs, *given.args, *given.kwonlyargs])
    for one in _family(module, node):
        for field in one.body:
            if isinstance(field, ast.AnnAssign):
                yield ast.unparse(field.target)
            elif isinstance(field, ast.FunctionDef) and field.name == "__init__":
                yield from _taken(module, field)


def main(argv: Sequence[str] | None = None) -> int:
    """Print what moved; returns 1 when something did."""
    parser = argparse.ArgumentParser(prog="python -m fivescore.engine.vllm.internals")
    parser.add_argument("--against", type=Path, required=True, metavar="DIR",
                        help="the folder of an unpacked vLLM wheel")  # fmt: skip
    try:
        found = moved(parser.parse_args(argv).against)
    except (OSError, SyntaxError) as error:
        parser.error(str(error))
    sys.stdout.write("\n".join(found or ["every name is where it was"]) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
