"""Compares ``POST /score`` with the engine, and the engine with the device, on a GPU.

``python -m loadtest.gpu`` makes checkpoints with the sizes of known models, five outputs and no
weights (vLLM fills in random ones). It measures fivescore, ``vllm serve`` and the engine alone in
turns, as ``make bench`` does, on one device. The device's speed is that of a matrix product of the
same dtype in the same run. ``--cases tiny`` tries the script on a CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.benchmark import Timer

from fivescore.settings import DEMO
from loadtest.loads import IDLE, Bar, Contender, Load, Make
from loadtest.model import Measured
from loadtest.report import GPU, gpu, surroundings, write_gpu
from loadtest.rounds import Row, compete
from loadtest.sides import FIVESCORE, LIMIT, OFFLINE, ON_CPU, VLLM, Sides, Work
from loadtest.texts import Texts, endless, shuffled


class Shape(NamedTuple):
    """A model's size, in the names of its config.json."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int

    @property
    def weights(self) -> int:
        """The number of weights in the matrices of all layers."""
        heads = self.num_attention_heads + self.num_key_value_heads
        layer = 2 * self.head_dim * heads + 3 * self.intermediate_size
        return self.num_hidden_layers * self.hidden_size * layer

    @property
    def cached_numbers(self) -> int:
        """The number of cached keys and values per token."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim


LLAMA_8B = Shape(4096, 14336, 32, 32, 8, 128, 128256)  # Llama 3.1 8B
QWEN_06B = Shape(1024, 3072, 28, 16, 8, 128, 151936)  # Qwen 3 0.6B
TINY = Shape(64, 128, 1, 2, 2, 32, 8192)


class Case(NamedTuple):
    """A checkpoint and the sides to measure: as many as fit into 80 GB together."""

    shape: Shape
    dtype: str
    quantization: str | None
    sides: Sequence[str]
    pairs: int
    """Pairs per round and side."""
    front_end: bool
    """Whether the front end limits the rate, as with a fast engine: then there are loads that show
    it, and no bars against the engine."""


CASES = {
    "8b-bf16": Case(LLAMA_8B, "bfloat16", None, (FIVESCORE, LIMIT, OFFLINE), 256, False),
    "0.6b-bf16": Case(QWEN_06B, "bfloat16", None, (FIVESCORE, VLLM, LIMIT), 512, True),
    "8b-fp8": Case(LLAMA_8B, "bfloat16", "fp8_per_channel", (FIVESCORE, LIMIT), 256, False),
    "tiny": Case(TINY, "float32", None, (FIVESCORE, VLLM, LIMIT, OFFLINE), 512, True),
}
TOKENS = 512
"""Tokens per pair."""
LATENCIES = 50
"""Single pairs per round whose latencies are measured."""
ROUNDS = 3
CACHE_TOKENS = 48 * 1024
"""Tokens in each engine's KV cache: more than a step and all the groups' prompts together."""
MEMORY_SHARE = 0.2
"""Share of the device's memory that vLLM requires to be free; the KV cache has a fixed size."""


def main() -> int:
    arguments = _arguments()
    ceilings = _ceilings()
    result = {
        "device": _device(),
        "FLOP/s of a matrix product": ceilings,
        "loads": [],
        **surroundings("gpu"),
    }
    failed = []

    def keep(row: Row) -> None:  # at once, so that a later failure does not lose it
        result["loads"].append(row)
        write_gpu(arguments.output, result)

    for name in arguments.cases:
        began = time.monotonic()
        try:
            _case(name, ceilings, arguments.logs, keep)
        except Exception:  # the other cases still run: time on the device is expensive
            traceback.print_exc()
            failed.append(name)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    print(gpu(result))
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.gpu", description=__doc__)
    cases = [name for name in CASES if name != "tiny"]
    parser.add_argument("--cases", nargs="+", choices=CASES, default=cases, metavar="CASE",
                        help=f"from {', '.join(CASES)} [all but tiny]")  # fmt: skip
    parser.add_argument("--logs", type=Path, help="keep the servers' logs there")
    parser.add_argument("--output", type=Path, default=GPU, metavar="FOLDER",
                        help="for files named for the device [%(default)s]")  # fmt: skip
    return parser.parse_args()


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def _case(
    name: str, ceilings: dict[str, float], logs: Path | None, keep: Callable[[Row], None]
) -> None:
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        model = Measured(str(_make(case.shape, Path(folder) / name)))
        options = _options(case)
        flags = [word for key, value in options.items() for word in (f"--{key}", value)]
        if not torch.cuda.is_available():
            flags += ON_CPU
        place = (logs or Path(folder)) / f"logs-{name}"
        sides = Sides(model, place, flags, options)
        asyncio.run(_measure(name, model, sides, ceilings, keep))


def _options(case: Case) -> dict[str, str]:
    cache = CACHE_TOKENS * case.shape.cached_numbers * getattr(torch, case.dtype).itemsize
    options = {
        "load-format": "dummy",
        "dtype": case.dtype,
        "kv-cache-memory-bytes": str(cache),
        "gpu-memory-utilization": str(MEMORY_SHARE),
    }
    return options | ({"quantization": case.quantization} if case.quantization else {})


def _make(shape: Shape, folder: Path) -> Path:
    """The demo's tokenizer, template and manifest with the config of another shape."""
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("model.safetensors"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | shape._asdict()))
    return folder


async def _measure(
    name: str,
    model: Measured,
    sides: Sides,
    ceilings: dict[str, float],
    keep: Callable[[Row], None],
) -> None:
    case = CASES[name]
    texts = endless(model, case.pairs)
    tokens = statistics.fmean(map(len, model.ids(texts.of_length(64, TOKENS))))
    ceiling = ceilings["float8_e4m3fn" if case.quantization else case.dtype]
    with sides.running(case.sides, at_once=torch.cuda.is_available()) as running:
        for load in _loads(name, case):
            row = await compete(load, running, texts, ROUNDS)
            if load.name.startswith("one POST"):
                for measured in row["contenders"].values():
                    rate = measured["tokens_per_second"] = measured["pairs_per_second"] * tokens
                    # 2 FLOP per weight and token, without those of attention
                    measured["of the device"] = 2 * case.shape.weights * rate / ceiling
            keep(row)


def _loads(name: str, case: Case) -> list[Load]:
    bars = [Bar(FIVESCORE, side, 0 if case.front_end else 0.97) for side in (LIMIT, OFFLINE)]
    front_end = (FIVESCORE, VLLM, LIMIT) if case.front_end else ()
    if VLLM in case.sides:
        bars.append(Bar(FIVESCORE, VLLM, 1))

    def load(what: str, make: Make, sides: Sequence[str]) -> Load:
        contenders = {side: Contender(side, make) for side in sides}
        return Load(what, name, contenders, [bar for bar in bars if bar.other in sides])

    pairs = f"texts of {TOKENS} tokens"
    loads = [
        load(f"one POST of {case.pairs} {pairs}", _texts(case.pairs, case.pairs), case.sides),
        load("64 prompts x 8 responses, 300-token prompts, shuffled", _groups, case.sides),
    ]
    if front_end:
        loads += [
            load(f"POSTs of 64 {pairs}", _texts(case.pairs, 64), front_end),
            load(f"64 clients, {pairs}, one a POST", _texts(case.pairs, 1, 64), front_end),
        ]
    idle = {side: Contender(side, _one_by_one) for side in case.sides}
    return [*loads, Load(IDLE, name, idle, [])]


def _texts(pairs: int, batch: int, workers: int = 1) -> Make:
    return lambda texts, _: Work(texts.of_length(pairs, TOKENS), batch, workers)


def _groups(texts: Texts, number: int) -> Work:
    return Work(shuffled(texts.groups(64, 8, 300), number), 512)


def _one_by_one(texts: Texts, _: int) -> Work:
    return Work(texts.of_length(LATENCIES, TOKENS), 1, one_by_one=True)


def _ceilings() -> dict[str, float]:
    """FLOP/s of one large matrix product by dtype: the median over a second of runs."""
    if not torch.cuda.is_available():
        return {"float32": _ceiling("a @ b", *torch.randn(2, 512, 512))}
    a, b = torch.randn(2, 8192, 8192, device="cuda", dtype=torch.bfloat16)
    one = torch.ones((), device="cuda")
    product = "torch._scaled_mm(a, b.t(), one, one, out_dtype=torch.bfloat16, use_fast_accum=True)"
    kind = torch.float8_e4m3fn
    ceilings = {
        "bfloat16": _ceiling("a @ b", a, b),
        "float8_e4m3fn": _ceiling(product, a.to(kind), b.to(kind), one=one),
    }
    torch.cuda.empty_cache()
    return ceilings


def _ceiling(product: str, a: torch.Tensor, b: torch.Tensor, **names: Any) -> float:
    timer = Timer(product, globals={"torch": torch, "a": a, "b": b, **names})
    seconds = float(timer.blocked_autorange(min_run_time=1).median)
    size = int(a.shape[0])
    return 2 * size * size * size / seconds


if __name__ == "__main__":
    raise SystemExit(main())
