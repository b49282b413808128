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

from fivescore.settings import DEMO

CODE = """
import os
open(os.environ["MARKER"], "a").write("ran\\n")
from transformers import LlamaConfig, PreTrainedTokenizerFast
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""
CONFIG = {"AutoConfig": "own.OwnConfig"}
TOKENIZER = {"AutoTokenizer": [None, "own.OwnTokenizer"]}


def checkpoint(folder: Path, model_type: str, config: Any, tokenizer: Any) -> Path:
    """The demo with code of its own, which its files name."""
    shutil.copytree(DEMO, folder)
    (folder / "own.py").write_text(CODE)
    said = json.loads((folder / "config.json").read_text())
    said |= {"model_type": model_type} | ({"auto_map": config} if config else {})
    (folder / "config.json").write_text(json.dumps(said))
    said = json.loads((folder / "tokenizer_config.json").read_text())
    if tokenizer:
        said |= {"auto_map": tokenizer, "tokenizer_class": "OwnTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


def start(folder: Path, *flags: str) -> tuple[subprocess.CompletedProcess[str], bool]:
    """Load it on the fake engine, which then fails on purpose; and whether the code ran.

    At a terminal's answer "yes": nobody may be asked either.
    """
    marker = folder.parent / "marker"
    environment = {**os.environ, "MARKER": str(marker), "HF_HOME": str(folder.parent / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "fivescore", "serve", "--backend", "fake", "--port", "0",
         "--engine.load-error", "it got as far as the engine", *flags],
        input="yes\n" * 10,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )  # fmt: skip
    return done, marker.exists()


@pytest.mark.parametrize(
    ("config", "tokenizer", "said"),
    [(CONFIG, None, "its config.json"), (CONFIG, TOKENIZER, "its tokenizer"),
     (None, TOKENIZER, "its tokenizer")],
    ids=["config", "both", "tokenizer"],
)  # fmt: skip
def test_code_of_a_checkpoint_is_refused_in_one_line_and_does_not_run(
    tmp_path: Path, config: Any, tokenizer: Any, said: str
) -> None:
    model_type = "own" if config else "llama"
    folder = checkpoint(tmp_path / "model", model_type, config, tokenizer)
    done, ran = start(folder, "--model", str(folder))
    assert not ran
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("fivescore: error: ")
    print(last)


def test_code_that_is_not_needed_does_not_run_either(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model", "llama", CONFIG, None)
    done, ran = start(folder, "--model", str(folder))
    assert not ran
    assert done.stderr.splitlines()[-1] == "fivescore: error: it got as far as the engine"


def test_code_of_a_policys_tokenizer_never_runs(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "policy", "own", CONFIG, TOKENIZER)
    for flags in ((), ("--trust-remote-code",)):
        done, ran = start(folder, "--policy-tokenizer", str(folder), *flags)
        assert not ran
        assert done.returncode == 1
        print(done.stderr.splitlines()[-1])


def test_code_runs_where_the_operator_asks_for_it(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model", "own", CONFIG, TOKENIZER)
    done, ran = start(folder, "--model", str(folder), "--trust-remote-code")
    assert ran
    print(done.stderr)
