"""``fivescore check`` and the proof, with vLLM and transformers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from fivescore.model.proof import PAIRS
from fivescore.settings import DEMO
from tests.e2e.server import START_SECONDS, environment
from tests.e2e.test_lifecycle import Failure, fail_to_start


def test_the_demos_engine_agrees_with_transformers_and_its_proof_holds() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "fivescore", "check", DEMO],
        capture_output=True, text=True, timeout=START_SECONDS, env=environment({}), check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "The manifest's proof holds." in ended.stdout
    assert ended.stdout.count("| equal |") == len(PAIRS)
    assert "Traceback" not in ended.stderr


def test_a_head_that_was_replaced_does_not_start(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEMO, tmp_path / "demo"))
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"] = weights["score.weight"] * 1.05
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    fail_to_start(Failure("", ("--model", str(folder)), ("proof", "output", "float32")))
