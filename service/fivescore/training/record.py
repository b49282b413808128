"""The machine-readable record of a run: ``training.json`` and the validation predictions."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fivescore.data.statistics import Array
from fivescore.training.recipe import Recipe, flag
from fivescore.training.rows import Example, Report

PACKAGES = ("fivescore", "torch", "transformers", "accelerate", "peft", "datasets", "tokenizers")
PREDICTIONS_FILE = "validation.jsonl"


def make_record(
    recipe: Recipe, trainer: Any, reports: Sequence[Report], dtype: str, seconds: float
) -> dict[str, Any]:
    """Recipe, command, versions, data counts and the log, without the final validation."""
    state = trainer.state
    best = state.best_model_checkpoint
    return {
        "command": command(recipe, trainer.args.world_size),
        "recipe": recipe.model_dump(mode="json"),
        "steps": state.global_step,
        "best_step": int(best.rpartition("-")[2]) if best else state.global_step,
        "devices": trainer.args.world_size,
        "distributed": trainer.accelerator.distributed_type.value,
        "device": str(trainer.args.device),
        "dtype": dtype,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "trained_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "seconds": round(seconds, 1),
        "versions": {"python": sys.version.split()[0], **{n: version(n) for n in PACKAGES}},
        "data": {
            report.name: {
                "rows": report.rows,
                "used": report.used,
                "unusable": dict(report.bad.counts),
                "first": report.bad.first,
            }
            for report in reports
        },
        "history": state.log_history,
    }


def command(recipe: Recipe, devices: int) -> str:
    """The command line that repeats the run."""
    words = ["fivescore", "train"]
    if devices > 1:
        words = ["accelerate", "launch", "--num_processes", str(devices), "-m", *words]
    for name in Recipe.model_fields:
        if name in recipe.model_fields_set - {
            "resume"
        }:  # a run without a break has the same result
            words += _spell(flag(name), getattr(recipe, name))
    return shlex.join(words)


def _spell(flag: str, value: Any) -> list[str]:
    """The command-line words that set a flag to exactly ``value``."""
    if isinstance(value, bool):
        return [flag] if value else []
    if isinstance(value, dict):
        value = ",".join(f"{name}={number!r}" for name, number in value.items())
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    # A word that begins with a dash would be read as another flag.
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]


def write_predictions(
    folder: Path, examples: Sequence[Example], values: Array, names: Sequence[str]
) -> None:
    """Write one JSON line per usable validation row: its place and its predicted attributes.

    Args:
        values: ``[rows, sequences, names]``; a comparison gets a list of two values per attribute.
    """
    with (folder / PREDICTIONS_FILE).open("w") as lines:
        for example, row in zip(examples, values.tolist(), strict=True):
            per_name = {name: [one[i] for one in row] for i, name in enumerate(names)}
            flat = {name: v[0] if len(v) == 1 else v for name, v in per_name.items()}
            lines.write(json.dumps({"place": example.place, **flat}) + "\n")
