"""Python code that a checkpoint brings does not run unless the operator asks for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fivescore.errors import ConfigurationError
from fivescore.model.checkpoint import Checkpoint
from fivescore.settings import DEMO, Settings

CODE = """
import os
open(os.environ["MARKER"], "a").write("ran")
from transformers import LlamaConfig, PreTrainedTokenizerFast
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""
CONFIG = {"AutoConfig": "own.OwnConfig"}
TOKENIZER = {"AutoTokenizer": [None, "own.OwnTokenizer"]}
LOAD = """
import sys
from fivescore.model.checkpoint import Checkpoint
from fivescore.settings import Settings
Checkpoint(Settings(model=sys.argv[1], trust_remote_code=sys.argv[2] == "yes"))
"""


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the code leaves where it ran, even if somebody says yes to being asked."""
    path = tmp_path / "marker"
    monkeypatch.setenv("MARKER", str(path))
    monkeypatch.setattr("builtins.input", lambda *_: "yes")
    return path


def checkpoint(folder: Path, model_type: str, config: Any, tokenizer: Any) -> str:
    """The demo with code of its own, which its files name."""
    shutil.copytree(DEMO, folder)
    (folder / "own.py").write_text(CODE)
    write(folder / "config.json", model_type=model_type, **({"auto_map": config} if config else {}))
    if tokenizer:
        own = {"auto_map": tokenizer, "tokenizer_class": "OwnTokenizer"}
        write(folder / "tokenizer_config.json", **own)
    return str(folder)


def write(file: Path, **members: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | members))


@pytest.mark.parametrize(
    ("model_type", "config", "tokenizer", "what"),
    [
        ("own", CONFIG, None, "config.json"),
        ("own", CONFIG, TOKENIZER, "tokenizer"),
        ("llama", None, TOKENIZER, "tokenizer"),
    ],
)
def test_code_of_a_checkpoint_is_refused_in_one_line_and_does_not_run(
    tmp_path: Path, marker: Path, model_type: str, config: Any, tokenizer: Any, what: str
) -> None:
    model = checkpoint(tmp_path / "model", model_type, config, tokenizer)
    with pytest.raises(ConfigurationError) as caught:
        Checkpoint(Settings(model=model))
    assert not marker.exists()
    told = caught.value.detail
    assert told.startswith(f"model {model}: its {what} cannot be loaded: ")
    assert "custom code" in told
    assert "--trust-remote-code" in told
    assert "\n" not in told


def test_code_that_is_not_needed_does_not_run_either(tmp_path: Path, marker: Path) -> None:
    Checkpoint(Settings(model=checkpoint(tmp_path / "model", "llama", CONFIG, None)))
    assert not marker.exists()


@pytest.mark.parametrize("trusted", [False, True])
def test_code_of_a_policys_tokenizer_never_runs(
    tmp_path: Path, marker: Path, trusted: bool
) -> None:
    policy = checkpoint(tmp_path / "policy", "own", CONFIG, TOKENIZER)
    with pytest.raises(ConfigurationError, match=r"^policy_tokenizer .* contains custom code"):
        Checkpoint(Settings(policy_tokenizer=policy, trust_remote_code=trusted))
    assert not marker.exists()


@pytest.mark.parametrize("trusted", ["yes", "no"])
def test_code_runs_where_the_operator_asks_for_it(
    tmp_path: Path, marker: Path, trusted: str
) -> None:
    """The others would find the marker, then, too. The library keeps a copy of such code."""
    model = checkpoint(tmp_path / "model", "own", CONFIG, TOKENIZER)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", LOAD, model, trusted]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert marker.exists() == (trusted == "yes"), done.stderr
    assert (done.returncode == 0) == (trusted == "yes"), done.stderr
