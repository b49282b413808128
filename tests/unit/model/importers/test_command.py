"""Imports of every kind of head: the written folder gives what the source's formula gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModel

from fivescore import __version__
from fivescore.cli import main
from fivescore.errors import ConfigurationError
from fivescore.model import manifest as manifests
from fivescore.model import proof, tokenizer_file
from fivescore.model.checkpoint import Checkpoint
from fivescore.model.conversation import Conversation
from fivescore.model.head import GatedHead, MlpHead, TokenHead
from fivescore.model.importers import proving
from fivescore.model.manifest import Affine, Manifest, PromptFormat
from fivescore.model.tensors import Stored, read_tensor
from fivescore.settings import Settings
from tests.unit.model.importers import made
from tests.unit.model.importers.test_adapter import adapted, scalar

NEMO = Path(__file__).parents[3] / "nemo" / "made"
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
        return list(chain(found, "score", hidden[-1], head.activation).tolist())
    score = functional.linear(hidden[-1], found["score.weight"], found.get("score.bias"))
    if not isinstance(head, GatedHead):
        return list(score.tolist())
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


def test_a_token_head_is_proved_from_the_language_model_s_row(tmp_path: Path) -> None:
    source, output = made.language_model(tmp_path / "source"), tmp_path / "output"
    assert run("import", source, "--output", output, "--token", "7", "--minus", "9") == 0
    manifest = manifests.read(str(output / "reward.json"))
    assert manifest.proof is not None
    rows = weights(output)["lm_head.weight"]
    conversation = Conversation(manifest.prompt, tokenizer_file.read(str(output)), None)
    for sample in proof.samples(manifest.proof, conversation, None):
        logits = rows @ states(output, sample.token_ids)[-1]
        assert sample.pair.outputs[0] == pytest.approx(float(logits[7] - logits[9]), abs=5e-5)


def test_a_turn_of_a_principle_may_have_other_braces(tmp_path: Path) -> None:
    source, file = made.language_model(tmp_path / "source"), tmp_path / "reward.json"
    given = Manifest(
        version=2,
        outputs=1,
        reward=Affine(output=0),
        head=TokenHead(kind="token", token=7, minus=9),
        prompt=PromptFormat(principle='As {"ok": true}: {principle}?'),
    )
    manifests.write(file, given)
    assert run("import", source, "--output", tmp_path / "output", "--manifest", file) == 0
    assert len(Checkpoint(Settings(model=str(tmp_path / "output"))).samples()) > 5


def test_an_adapter_is_imported_as_a_merged_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, folder = scalar(tmp_path / "base"), tmp_path / "adapter"
    wanted = adapted(base, folder, task_type="SEQ_CLS", r=4, target_modules=["q_proj"])
    assert run("import", folder, "--output", tmp_path / "output") == 0
    assert "a PEFT adapter; merged, it is a llama reward model" in capsys.readouterr().err
    name = "model.layers.0.self_attn.q_proj.weight"
    torch.testing.assert_close(weights(tmp_path / "output")[name], wanted[name])
    assert len(Checkpoint(Settings(model=str(tmp_path / "output"))).samples()) == 9


def test_where_it_came_from_is_kept(tmp_path: Path) -> None:
    source = made.linear(tmp_path / "source")
    for name in ("one", "two"):
        assert run("import", source, "--output", tmp_path / name, "--no-proof") == 0
    one, two = (manifests.read(str(tmp_path / name / "reward.json")) for name in ("one", "two"))
    assert one == two
    assert one.proof is None
    assert one.source is not None
    assert (one.source.from_, one.source.by) == (str(source), f"fivescore import {__version__}")
    made.linear(source, outputs=5)
    assert run("import", source, "--output", tmp_path / "three", "--no-proof") == 0
    three = manifests.read(str(tmp_path / "three/reward.json"))
    assert three.source is not None
    assert three.source.sha256 != one.source.sha256


TRL_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '<|pad|>' }}{% endfor %}"
)


def test_a_template_that_ends_with_the_pad_token_is_read_before_it(tmp_path: Path) -> None:
    source = scalar(tmp_path / "source")
    (source / "chat_template.jinja").write_text(TRL_TEMPLATE)
    assert run("import", source, "--output", tmp_path / "output") == 0
    manifest = manifests.read(str(tmp_path / "output/reward.json"))
    assert manifest.prompt.end == "last_not_pad"
    assert manifest.proof is not None


def test_a_template_with_today_s_date_gets_a_fixed_one(tmp_path: Path) -> None:
    source = made.linear(tmp_path / "source")
    template = source / "chat_template.jinja"
    template.write_text("{{ strftime_now('%d %b %Y') }}" + template.read_text())
    assert run("import", source, "--output", tmp_path / "output") == 0
    manifest = manifests.read(str(tmp_path / "output/reward.json"))
    assert manifest.prompt.date is not None


def test_inspect_says_what_can_be_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, other = scalar(tmp_path / "plain"), made.armorm(tmp_path / "other")
    assert run("inspect", plain) == 0
    assert "It can be served as it is: fivescore serve" in capsys.readouterr().out
    assert run("inspect", other) == 0
    out = capsys.readouterr().out
    assert "19 gated objectives (ArmoRM)" in out
    assert "served as it is" not in out
    assert f"It can be imported: fivescore import {other} --output DIR" in out
    assert run("inspect", made.language_model(tmp_path / "third")) == 1
    assert "a language model without a reward head: --token ID" in capsys.readouterr().err
    nemotron = made.language_model(tmp_path / "Llama-3.1-Nemotron-70B-Reward-HF")
    assert run("inspect", nemotron) == 0
    as_it_is = f"fivescore serve --model {nemotron} --manifest llama-3.1-nemotron-70b-reward"
    assert as_it_is in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["mlp", "armorm"])
def test_what_was_imported_can_be_served(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = made.MAKERS[kind](tmp_path / "source"), tmp_path / "output"
    assert run("import", source, "--output", output, "--no-proof") == 0
    assert run("inspect", output) == 0
    assert f"It can be served as it is: fivescore serve --model {output}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["model.nemo", "model.gguf", "weights.safetensors"])
def test_inspect_of_a_file_is_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(b"no archive")
    assert run("inspect", tmp_path / name) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_inspect_takes_a_nemo_archive(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", NEMO / "zarr-llama-bfloat16" / "model.nemo") == 0
    assert "It can be imported" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["[]", '{"architectures": {"a": 1}}', '{"architectures": [3]}'])
def test_inspect_of_a_damaged_configuration_is_one_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (made.linear(tmp_path) / "config.json").write_text(text)
    assert run("inspect", tmp_path) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_inspect_reads_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = made.qrm(tmp_path)
    read: list[int] = []

    def counting(self: Stored) -> torch.Tensor:
        found: torch.Tensor = read_tensor(self.file, self.name)
        read.append(found.numel())
        return found

    monkeypatch.setattr(Stored, "read", counting)
    assert run("inspect", source) == 0
    assert sum(read) <= 1  # the gate's scale, a number


def test_the_kinds_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("import", "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "armorm", "qrm", "urm", "athene", "internlm2", "mlp", "token", "linear", "adapter", "nemo",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [["import"], ["import", "x"], ["import", "--output", "x"], ["inspect"],
     ["import", "x", "--output", "y", "--minus", "3"]],
)  # fmt: skip
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    assert main(arguments) == 2


def test_a_failure_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = made.linear(tmp_path / "source")
    (source / "chat_template.jinja").unlink()
    assert run("import", source, "--output", tmp_path / "output") == 1
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith("fivescore: error: the tokenizer has no chat template")
    assert len(err) == 2  # what it is, and the error
    assert not (tmp_path / "output").exists()


def test_weights_that_are_not_finite_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = made.linear(tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    made.save(source, tensors)
    assert run("import", source, "--output", tmp_path / "output") == 1
    assert "the reference gives nan for a pair of the proof" in capsys.readouterr().err


def test_a_body_that_cannot_be_proved_may_be_imported_without_a_proof(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = made.linear(tmp_path / "source"), tmp_path / "output"
    fails = ConfigurationError("model x: transformers cannot load it as the reference: no")
    monkeypatch.setattr(proving, "StreamedBody", lambda *_: (_ for _ in ()).throw(fails))
    assert run("import", source, "--output", output) == 1
    assert "the same command with --no-proof makes" in capsys.readouterr().err
    assert not (output / "config.json").exists()
    assert run("import", source, "--output", output, "--no-proof") == 0
    assert manifests.read(str(output / "reward.json")).proof is None


@pytest.mark.parametrize("name", ["torch_dist-llama-layers-tp2", "zarr-llama-bfloat16"])
def test_a_nemo_checkpoint_is_imported_from_its_folder_or_archive(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = NEMO / name, tmp_path / "output"
    assert run("inspect", source) == 0
    assert "a NeMo checkpoint" in capsys.readouterr().out
    assert run("import", source, "--output", output) == 0
    assert len(Checkpoint(Settings(model=str(output))).samples()) > 5
