"""On a GPU: what ``POST /score`` keeps of the engine's speed, and the engine of the device's.

``python -m loadtest.gpu`` makes a checkpoint of a known model's shape with five outputs and no
weights (vLLM fills them in), starts fivescore and the engine alone one after the other, each having
the whole device, and gives both the same work. The share of the device is of a matrix product of
the same dtype, measured in the same run. ``--shape tiny`` tries the script on a CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fivescore.settings import DEMO
from loadtest.driver import quantile
from loadtest.model import Measured
from loadtest.report import RESULTS, save, surroundings
from loadtest.sides import FIVESCORE, LIMIT, Sides, Took, Work
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
        """Of all layers' matrices."""
        heads = self.num_attention_heads + self.num_key_value_heads
        layer = 2 * self.head_dim * heads + 3 * self.intermediate_size
        return self.num_hidden_layers * self.hidden_size * layer


SHAPES = {
    "8b": Shape(4096, 14336, 32, 32, 8, 128, 128256),  # Llama 3.1 8B
    "0.6b": Shape(1024, 3072, 28, 16, 8, 128, 151936),  # Qwen 3 0.6B
    "tiny": Shape(64, 128, 1, 2, 2, 32, 8192),
}
TOKENS = 512
LATENCIES = 100
ROUNDS = 3


def main() -> int:
    given = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        model = Measured(str(_make(SHAPES[given.shape], Path(folder) / given.shape)))
        options = {"load-format": "dummy", "dtype": given.dtype}
        if given.quantization:
            options["quantization"] = given.quantization
        sides = Sides(model, given.logs or Path(folder), options=options)
        took = asyncio.run(_measure(sides, endless(model, 512), given.pairs))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    result = {
        "device": device,
        **_summarise(SHAPES[given.shape], took, _ceiling(given.dtype)),
        **surroundings("gpu"),
    }
    name = "-".join([device.replace(" ", "-"), given.shape, given.quantization or given.dtype])
    save(result, None if given.shape == "tiny" else RESULTS / f"{name}.json")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.gpu", description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--quantization", help="of vLLM, such as fp8")
    parser.add_argument("--pairs", type=int, default=1024, help="of 512 tokens, a round [1024]")
    parser.add_argument("--logs", type=Path, help="keep the servers' logs there")
    return parser.parse_args()


def _make(shape: Shape, folder: Path) -> Path:
    """The demo's tokenizer, template and manifest with the config of another shape."""
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("model.safetensors"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | shape._asdict()))
    return folder


async def _measure(sides: Sides, texts: Texts, pairs: int) -> dict[str, dict[str, list[Took]]]:
    """By load and side, the rounds that count."""
    loads: dict[str, Callable[[], Work]] = {
        "pairs of 512 tokens": lambda: Work(texts.of_length(pairs, TOKENS), pairs),
        "64 prompts x 16 responses": lambda: Work(shuffled(texts.groups(64, 16, 300), 1), 1024),
        "single pairs": lambda: Work(texts.of_length(LATENCIES, TOKENS), 1, one_by_one=True),
    }
    took: dict[str, dict[str, list[Took]]] = {name: {} for name in loads}
    for name in (FIVESCORE, LIMIT):
        with sides.start(name) as side:
            for load, make in loads.items():
                took[load][name] = [await side.take(make()) for _ in range(ROUNDS + 1)][1:]
    return took


def _summarise(
    shape: Shape, took: dict[str, dict[str, list[Took]]], ceiling: float
) -> dict[str, Any]:
    found: dict[str, Any] = {"matrix product, FLOP/s": ceiling}
    for load, by_side in took.items():
        for side, rounds in by_side.items():
            rate = statistics.median(one.rate for one in rounds)
            latencies = [latency for one in rounds for latency in one.run.latencies]
            row = {"pairs_per_second": rate, "p50_ms": 1000 * quantile(latencies, 0.5)}
            if load == "pairs of 512 tokens":  # 2 FLOP a weight and token; attention is left out
                row["tokens_per_second"] = rate * TOKENS
                row["of the device"] = 2 * shape.weights * rate * TOKENS / ceiling
            found[f"{load}, {side}"] = row
    return found


def _ceiling(dtype: str) -> float:
    """FLOP/s of one large matrix product, the best of ten."""
    cuda = torch.cuda.is_available()
    size = 8192 if cuda else 512
    kind = getattr(torch, dtype) if cuda else torch.float32
    a = torch.randn(size, size, dtype=kind, device="cuda" if cuda else "cpu")
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        a @ a
        if cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


if __name__ == "__main__":
    raise SystemExit(main())
