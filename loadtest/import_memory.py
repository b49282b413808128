"""Memory and time of an import: ``python -m loadtest.import_memory --folder DIR``.

Makes a folder of random bfloat16 weights with the shapes of Llama-3.1-8B and a ``v_head`` (16 GB),
imports it in a process of its own, and reports that process's peak memory. The import has as many
bytes again; both folders are removed at the end.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from fivescore.model import manifest as manifests
from fivescore.model.importers import sources
from fivescore.model.importers.plan import Plan, PlannedTensor
from fivescore.model.importers.writing import Writer
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
PROGRAM = """
import sys
from pathlib import Path
from fivescore.cli import main
status = main(sys.argv[1:])
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line for line in lines if line.startswith("VmHWM")))
sys.exit(status)
"""
"""The import, which ends with its own peak memory; getrusage counts its parent's too."""
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
    """The source, with the nano checkpoint's tokenizer and template, a tensor at a time."""
    with tempfile.TemporaryDirectory() as place:
        tokenizer = sources.files(nano.make(Path(place) / "nano"))
        plan = Plan(
            kind="random",
            sentence="",
            config={**LLAMA_8B, "num_hidden_layers": layers},
            manifest=manifests.PRESETS["scalar"],
            tensors=[
                PlannedTensor(name, shape, "BF16", partial(_drawn, shape))
                for name, shape in _shapes(layers).items()
            ],
            files=tokenizer,
        )
        writer = Writer(plan, folder, Path(place))
        with tqdm(total=writer.bytes, unit="B", unit_scale=True, disable=None) as bar:
            writer.write(bar)
        writer.finish(plan.manifest)
    (folder / manifests.FILE_NAME).unlink()


def _drawn(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.bfloat16).uniform_(-0.025, 0.025)


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
    arguments = ["import", str(source), "--output", str(output)]
    command = [sys.executable, "-c", PROGRAM, *arguments, *(["--no-proof"] if no_proof else [])]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    written = sum(file.stat().st_size for file in output.glob("*.safetensors"))
    return {
        "peak_mib": round(int(done.stdout.split()[1]) / 1024),
        "written_mib": round(written / MIB),
        "seconds": round(seconds, 1),
        "proved": not no_proof,
    }


if __name__ == "__main__":
    raise SystemExit(main())
