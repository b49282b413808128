"""Each checkpoint that Megatron made, imported: its own hidden states, outputs and token ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fivescore.model import tokenizer_file
from fivescore.model.conversation import Conversation
from fivescore.model.importers import nemo
from fivescore.model.importers.plan import Plan
from fivescore.model.manifest import Affine
from fivescore.types import Pair
from tests.nemo.made_folders import FOLDERS, expected, source, write

TOLERANCE = 1e-4
LEAST_SPREAD = 0.05
"""Standard deviation over the sequences: what does not depend on them shows nothing."""


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def made(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.param
    return folder


@pytest.fixture(scope="module")
def plan(made: Path) -> Plan:
    return nemo.plan(source(made))


@pytest.fixture(scope="module")
def written(made: Path, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(plan, tmp_path_factory.mktemp(made.name) / "model")


def test_transformers_gives_megatron_s_states_and_outputs(made: Path, written: Path) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModel

    body, report = AutoModel.from_pretrained(
        written, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not report["missing_keys"]
    head = load_file(written / "model.safetensors")
    outputs = []
    for sequence in expected(made)["sequences"]:
        with torch.no_grad():
            states = body.eval()(torch.tensor([sequence["ids"]])).last_hidden_state[0]
        torch.testing.assert_close(states, torch.tensor(sequence["hidden"]), rtol=0, atol=TOLERANCE)
        found = states[-1] @ head["score.weight"].float().T + head["score.bias"].float()
        torch.testing.assert_close(found, torch.tensor(sequence["outputs"]), rtol=0, atol=TOLERANCE)
        outputs.append(found)
    assert torch.stack(outputs).std(dim=0).min() > LEAST_SPREAD


def test_texts_get_the_ids_that_nemo_gives(made: Path, written: Path) -> None:
    backend = tokenizer_file.read(str(written)).backend_tokenizer
    for text in expected(made)["texts"]:
        # SentencePiece reads no control token from text.
        backend.encode_special_tokens = "<s>" in text["text"]
        ids = backend.encode(text["text"], add_special_tokens=False).ids
        assert ids == text["ids"], text["text"]


def test_a_pair_gets_the_ids_of_nemo_s_own_rendering(made: Path, plan: Plan, written: Path) -> None:
    conversation = Conversation(plan.manifest.prompt, tokenizer_file.read(str(written)))
    ids = conversation.encode([Pair(prompt="Hi, a dog?", response="A fox.")])
    assert ids == [expected(made)["texts"][0]["ids"]]


def test_the_folder_says_what_the_checkpoint_is(made: Path, plan: Plan) -> None:
    facts = expected(made)
    config: dict[str, Any] = dict(plan.config)
    assert config["model_type"] == facts["shape"]
    assert config["max_position_embeddings"] == plan.manifest.max_tokens == 256
    assert plan.manifest.outputs == facts["outputs"]
    assert plan.manifest.prompt.format == "steerlm"
    if facts["outputs"] == 1:
        assert plan.manifest.reward == Affine(output=0, scale=1 / 2.5, offset=-0.75 / 2.5)
        return
    assert config["id2label"]["3"] == "creativity"
    assert config["id2label"]["4"] == "helpfulness"
    assert [affine.output for affine in plan.manifest.attributes.values()] == [4, 5, 6, 7, 8]
    first = {"llama": 0.65, "nemotron": 0.3}[facts["shape"]]  # the published models' cards
    assert getattr(plan.manifest.reward, "weights")["helpfulness"] == first  # noqa: B009
