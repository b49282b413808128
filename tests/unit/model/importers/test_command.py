"""Imports of every kind of head: the written folder gives what the source's formula gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModel

from fivescore.cli import main
from fivescore.model import manifest as manifests
from fivescore.model import proof, tokenizer_file
from fivescore.model.checkpoint import Checkpoint
from fivescore.model.conversation import Conversation
from fivescore.model.head import GatedHead, MlpHead
from fivescore.model.manifest import Manifest
from fivescore.settings import Settings
from tests.unit.model.importers import made

Tensors = dict[str, torch.Tensor]


def run(*arguments: object) -> int:
    return main(list(map(str, arguments)))


def weights(folder: Path) -> Tensors:
    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def states(folder: Path, ids: Sequence[int]) -> torch.Tensor:
    body = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return body(torch.tensor([ids])).last_hidden_state[0]


def outputs(folder: Path, manifest: Manifest, ids: list[int]) -> list[float]:
    """The written head over the written body, as ``model/head.py`` describes each kind."""
    found, hidden, head = weights(folder), states(folder, ids), manifest.head
    if isinstance(head, MlpHead):
        return chain(found, "score", hidden[-1], head.activation).tolist()
    score = functional.linear(hidden[-1], found["score.weight"], found.get("score.bias"))
    if not isinstance(head, GatedHead):
        return score.tolist()
    gate, at = head.gate, list(head.gate.at)
    starts = [j for j in range(len(ids)) if at and ids[j : j + len(at)] == at]
    shares = chain(found, "gate", hidden[starts[-1] if at else -1], gate.activation)
    shares = (shares.softmax(0) if gate.softmax else shares) * gate.scale
    return [*score.tolist(), float((score * shares).sum())]


def chain(found: Tensors, name: str, state: torch.Tensor, activation: str) -> torch.Tensor:
    numbers = sorted(int(key.split(".")[1]) for key in found if key.startswith(f"{name}."))[::2]
    for number in numbers:
        if number:
            state = getattr(functional, activation)(state)
        weight, bias = found[f"{name}.{number}.weight"], found[f"{name}.{number}.bias"]
        state = functional.linear(state, weight, bias)
    return state


@pytest.mark.parametrize("kind", made.MAKERS)
def test_the_written_folder_gives_what_its_proof_says(kind: str, tmp_path: Path) -> None:
    source, output = made.MAKERS[kind](tmp_path / "source"), tmp_path / "output"
    assert run("import", source, "--output", output) == 0
    manifest = manifests.read(str(output / "reward.json"))
    assert manifest.proof is not None
    assert manifest.source is not None
    assert len(manifest.proof.pairs) == 9  # the long pair is over this body's context
    conversation = Conversation(manifest.prompt, tokenizer_file.read(str(output)), None)
    for sample in proof.samples(manifest.proof, conversation, None):
        found = outputs(output, manifest, sample.token_ids)
        assert found == pytest.approx(list(sample.pair.outputs), rel=1e-5, abs=5e-5)


@pytest.mark.parametrize("kind", ["linear", "internlm2"])
def test_the_service_takes_the_folder_of_a_linear_head(kind: str, tmp_path: Path) -> None:
    source, output = made.MAKERS[kind](tmp_path / "source"), tmp_path / "output"
    assert run("import", source, "--output", output) == 0
    assert len(Checkpoint(Settings(model=str(output))).samples()) == 9
