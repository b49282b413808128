"""Memory and time of an import: ``python -m loadtest.import_memory --folder DIR``.

Makes a folder of random bfloat16 weights with the shapes of Llama-3.1-8B and a ``v_head`` (16 GB),
imports it in a process of its own, and reports that process's peak memory. The import has as many
bytes again; both folders are removed at the end.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from fivescore.model import manifest as manifests
from loadtest import nano
from loadtest.report import RESULTS, save, surroundings

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256,
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "pad_token_id": 0,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                     "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
}  # fmt: skip
"""config.json of meta-llama/Llama-3.1-8B."""
SHARDS = 4
"""Files of that repository."""
MIB = 2**20

Shapes = dict[str, tuple[int, ...]]


def main() -> int:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        source, output = Path(place) / "source", Path(place) / "output"
        _make(source, arguments.layers)
        result = _measure(source, output, arguments.no_proof)
    save({**result, "layers": arguments.layers, **surroundings("import_memory")}, arguments.output)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where 32 GB are free")
    parser.add_argument("--layers", type=int, default=32, help="layers of the body [32]")
    parser.add_argument("--no-proof", action="store_true", help="import without a proof")
    parser.add_argument("--output", type=Path, help=f"JSON, such as {RESULTS}/import_memory.json")
    return parser.parse_args()


def _make(folder: Path, layers: int) -> None:
    """The source, with the nano checkpoint's tokenizer and template."""
    nano.make(folder)
    for name in ("model.safetensors", manifests.FILE_NAME):
        (folder / name).unlink(missing_ok=True)
    config = {**LLAMA_8B, "num_hidden_layers": layers}
    (folder / "config.json").write_text(json.dumps(config))
    places: dict[str, str] = {}
    for number, part in enumerate(_parts(list(_shapes(layers).items())), 1):
        name = f"model-{number:05d}-of-{SHARDS:05d}.safetensors"
        tensors = {one: (torch.rand(shape) - 0.5).mul_(0.05).bfloat16() for one, shape in part}
        save_file(tensors, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))


def _parts(
    shapes: list[tuple[str, tuple[int, ...]]],
) -> Iterator[list[tuple[str, tuple[int, ...]]]]:
    size = -(-len(shapes) // SHARDS)
    return (shapes[start : start + size] for start in range(0, len(shapes), size))


def _shapes(layers: int) -> Shapes:
    hidden, inner, vocabulary = 4096, 14336, 128256
    found: Shapes = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        found |= {f"{at}.self_attn.{one}_proj.weight": (hidden, hidden) for one in "qo"}
        found |= {f"{at}.self_attn.{one}_proj.weight": (1024, hidden) for one in "kv"}
        found |= {f"{at}.mlp.{one}_proj.weight": (inner, hidden) for one in ("gate", "up")}
        found[f"{at}.mlp.down_proj.weight"] = (hidden, inner)
        found |= {f"{at}.{one}_layernorm.weight": (hidden,) for one in ("input", "post_attention")}
    found |= {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}
    return {**found, "v_head.weight": (1, hidden)}


def _measure(source: Path, output: Path, no_proof: bool) -> dict[str, Any]:
    command = [sys.executable, "-m", "fivescore", "import", str(source), "--output", str(output)]
    start = time.perf_counter()
    subprocess.run([*command, *(["--no-proof"] if no_proof else [])], check=True)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    written = sum(file.stat().st_size for file in output.glob("*.safetensors"))
    return {
        "peak_mib": round(peak / MIB),
        "written_mib": round(written / MIB),
        "seconds": round(seconds, 1),
        "proved": not no_proof,
    }


if __name__ == "__main__":
    raise SystemExit(main())
