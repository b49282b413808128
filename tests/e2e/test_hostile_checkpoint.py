"""Weights that are a program do not run it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch

from fivescore.settings import DEMO
from tests.e2e.server import START_SECONDS, command, environment


class Program:
    """What a pickle runs when it is read: this one leaves a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_a_program_among_the_weights_does_not_run(tmp_path: Path) -> None:
    model, marker = tmp_path / "model", tmp_path / "marker"
    shutil.copytree(DEMO, model, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save({"score.weight": Program(marker)}, model / "pytorch_model.bin")
    done = subprocess.run(
        command("--model", str(model), "--port", "0"),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS,
    )
    assert not marker.exists()
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"fivescore: error: model {model}: ")

    torch.load(model / "pytorch_model.bin", weights_only=False)  # it would have left its mark
    assert marker.exists()
