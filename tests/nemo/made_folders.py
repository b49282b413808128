"""The checkpoints that Megatron made, and what an importer plans of them as a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from fivescore.model import manifest
from fivescore.model.importers.plan import Plan

ROOT = Path(__file__).parents[2]
KEPT = Path(__file__).parent / "made"
"""Some that are kept with the code, so that they are read wherever tests run."""
FOLDERS = sorted(file.parent for file in KEPT.glob("*/expected.json"))
FOLDERS += [
    file.parent
    for file in sorted((ROOT / ".nemo" / "made").glob("*/expected.json"))
    if not (KEPT / file.parent.name).exists()
]


def source(folder: Path) -> Path:
    """What is imported: the archive in a made folder, or the folder itself."""
    archive = folder / "model.nemo"
    return archive if archive.is_file() else folder


def expected(folder: Path) -> dict[str, Any]:
    """What Megatron and NeMo's tokenizer gave."""
    found: dict[str, Any] = json.loads((folder / "expected.json").read_text())
    return found


def write(plan: Plan, output: Path) -> Path:
    """Write a plan as one file of weights."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.json").write_text(json.dumps(dict(plan.config)))
    manifest.write(output / manifest.FILE_NAME, plan.manifest)
    tensors = {}
    for tensor in plan.tensors:
        values = tensors[tensor.name] = tensor.read()
        assert tuple(values.shape) == tensor.shape, tensor.name
    save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})
    for name, path in plan.files.items():
        shutil.copyfile(path, output / name)
    return output
