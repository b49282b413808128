"""What a source is taken for, by its configuration, its tensors' names, its files and its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from fivescore.errors import ConfigurationError
from fivescore.model.head import LinearHead, MlpHead, TokenHead
from fivescore.model.importers.options import Options
from fivescore.model.importers.plan import Plan
from fivescore.model.importers.recognition import plan, plan_at
from fivescore.model.manifest import Affine
from tests.unit.model.importers import made


def planned(folder: Path, **options: Any) -> Plan:
    return plan(str(folder), Options(**options))


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        planned(folder, **options)
    assert len(caught.value.detail) <= 200 + len(str(folder))
    return caught.value.detail


@pytest.mark.parametrize(
    "name",
    ["score", "v_head", "value_head", "regression_head", "v_head.summary", "rm_head", "classifier",
     "lm_head", "value_head.dense.out"],
)  # fmt: skip
def test_one_linear_layer_is_a_head_under_any_name(name: str, tmp_path: Path) -> None:
    tensors = made.base(tmp_path) | {f"{name}.weight": made.drawn(1, made.HIDDEN)}
    found = planned(made.save(tmp_path, tensors))
    assert found.manifest.head == LinearHead()
    assert [one.name for one in found.tensors if "score" in one.name] == ["score.weight"]
    assert found.config["architectures"] == ["LlamaForSequenceClassification"]


@pytest.mark.parametrize("before", ["pretrained_model.", "module.", "_orig_mod.module."])
def test_what_wraps_a_model_is_taken_off_its_names(before: str, tmp_path: Path) -> None:
    tensors = {before + name: tensor for name, tensor in made.base(tmp_path).items()}
    tensors["v_head.weight"] = made.drawn(1, made.HIDDEN)
    found = planned(made.save(tmp_path, tensors))
    assert {one.name.partition(".")[0] for one in found.tensors} == {"model", "score"}


@pytest.mark.parametrize("before", ["", "rwtransformer.", "rwtranrsformer."])
def test_a_body_that_lacks_its_name_gets_it(before: str, tmp_path: Path) -> None:
    tensors = {before + k.removeprefix("model."): v for k, v in made.base(tmp_path).items()}
    tensors["v_head.weight"] = made.drawn(1, made.HIDDEN)
    found = planned(made.save(tmp_path, tensors))
    assert {one.name.partition(".")[0] for one in found.tensors} == {"model", "score"}


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("before", ["backbone.model.", "model.model.", "llm.", "base_model.model."])
def test_a_body_under_another_name_gets_its_own(before: str, inside: bool, tmp_path: Path) -> None:
    tensors = {k.replace("model.", before, 1): v for k, v in made.base(tmp_path).items()}
    head = f"{before.partition('.')[0]}.v_head" if inside and "model" in before[1:] else "v_head"
    tensors[f"{head}.weight"] = made.drawn(1, made.HIDDEN)
    found = {one.name for one in planned(made.save(tmp_path, tensors)).tensors}
    assert {"model.norm.weight", "model.layers.1.mlp.up_proj.weight", "score.weight"} <= found
    assert {name.partition(".")[0] for name in found} == {"model", "score"}


SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "vocab_size": 64, "pad_token_id": 0, "num_labels": 1,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {**SIZES, "head_dim": 16},
    "gemma2": {**SIZES, "head_dim": 16},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 64, "pad_token_id": 0},
    "gpt_neox": SIZES,
    "opt": {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 16},
    "phi": SIZES,
    "bloom": {**SIZES, "n_layer": 2, "n_head": 2},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 2, "vocab_size": 64, "pad_token_id": 0},
    "mixtral": {**SIZES, "num_local_experts": 3},
}
"""Bodies whose layers, embeddings and norms have other names, or several."""


@pytest.mark.parametrize("saved", ["language model", "body"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_body_of_any_family_gets_the_names_of_its_classifier(
    family: str, saved: str, tmp_path: Path
) -> None:
    config = AutoConfig.for_model(family, **FAMILIES[family])
    model = AutoModelForCausalLM.from_config(config)
    wanted = {k for k in model.state_dict() if not k.startswith(("lm_head", "embed_out"))}
    model = model if saved == "language model" else model.base_model
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors") | {"value_head.weight": torch.ones(1, 32)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = {one.name for one in planned(tmp_path).tensors}
    if family != "mixtral":  # whose experts are merged in memory alone
        assert found == {*wanted, "score.weight"}
    assert all(name.startswith((model.base_model_prefix, "score")) for name in found)


@pytest.mark.parametrize("name", ["score", "v_head.summary"])
def test_known_heads_of_several_layers_have_relu(name: str, tmp_path: Path) -> None:
    found = planned(made.mlp(tmp_path, name))
    assert found.manifest.head == MlpHead(kind="mlp", hidden=(made.HIDDEN,))


def test_an_unknown_head_of_several_layers_must_be_asked_for(tmp_path: Path) -> None:
    folder = made.mlp(tmp_path, "value_head")
    assert "--kind mlp takes ReLU" in refused(folder)
    assert planned(folder, kind="mlp").kind == "mlp"


@pytest.mark.parametrize("file", ["value_head.safetensors", "value_head.bin"])
@pytest.mark.parametrize("is_sharded", [False, True])
def test_a_head_may_lie_in_a_file_of_its_own(file: str, is_sharded: bool, tmp_path: Path) -> None:
    made.linear(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    head = {name: tensors.pop(name) for name in list(tensors) if name.startswith("v_head")}
    made.save(tmp_path, tensors)
    save = save_file if file.endswith("safetensors") else torch.save
    save(head, tmp_path / file)
    if is_sharded:
        shutil.move(tmp_path / "model.safetensors", tmp_path / "model-00001-of-00001.safetensors")
        places = dict.fromkeys(tensors, "model-00001-of-00001.safetensors")
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": places}))
    found = {one.name: one for one in planned(tmp_path).tensors}
    assert torch.equal(found["score.weight"].read(), head["v_head.summary.weight"])
    assert torch.equal(found["score.bias"].read(), head["v_head.summary.bias"])


def test_bin_files_are_read(tmp_path: Path) -> None:
    folder = made.linear(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    for one in planned(folder).tensors:
        name = one.name.replace("score", "v_head.summary")
        assert torch.equal(one.read(), tensors[name])
        assert not one.files


OPENRLHF = {"architectures": ["RewardModel"], "mean": 0.5, "std": 2.0}


@pytest.mark.parametrize(
    ("config", "normalize", "reward"),
    [
        ({}, False, Affine(output=0)),
        ({}, True, Affine(output=0, scale=0.5, offset=-0.25)),
        ({"normalize_reward": True}, False, Affine(output=0, scale=0.5, offset=-0.25)),
        ({"normalize_enable": True}, False, Affine(output=0, scale=0.5, offset=-0.25)),
    ],
)
def test_openrlhf_is_read_at_eos_and_normalised_where_it_says_so(
    config: dict[str, Any], normalize: bool, reward: Affine, tmp_path: Path
) -> None:
    tensors = made.base(tmp_path) | {"value_head.weight": made.drawn(1, made.HIDDEN)}
    made.save(tmp_path, tensors, **OPENRLHF, **config, value_head_prefix="value_head")
    found = planned(tmp_path, normalize=normalize)
    assert found.manifest.reward == reward
    assert found.manifest.prompt.end == "eos"


@pytest.mark.parametrize(
    ("config", "normalize"),
    [
        ({"std": 0.0}, True),
        ({"std": None, "normalize_reward": True}, False),
        ({"mean": "0.5"}, True),
        ({"mean": [0.5], "std": [2.0], "normalize_enable": True}, False),
        ({"mean": float("nan"), "normalize_reward": True}, False),
        ({"mean": None, "std": None}, True),
    ],
)
def test_a_mean_and_std_that_cannot_be_applied_are_refused(
    config: dict[str, Any], normalize: bool, tmp_path: Path
) -> None:
    tensors = made.base(tmp_path) | {"score.weight": made.drawn(1, made.HIDDEN)}
    made.save(tmp_path, tensors, **{**OPENRLHF, **config})
    assert "must be numbers, and std above 0" in refused(tmp_path, normalize=normalize)


def test_an_option_that_would_do_nothing_is_refused(tmp_path: Path) -> None:
    folder = made.linear(tmp_path / "linear")
    assert "--normalize" in refused(folder, normalize=True)
    assert "--normalize" in refused(made.mlp(tmp_path / "mlp"), normalize=True)
    assert "--token" in refused(folder, token="5")
    assert "--minus" in refused(folder, minus="5")
    assert "--base" in refused(folder, base=str(folder))
    model = made.language_model(tmp_path / "model")
    assert "--token ID" in refused(model, kind="token")


@pytest.mark.parametrize("outputs", [5, 9])
def test_five_and_nine_outputs_have_their_known_meaning(outputs: int, tmp_path: Path) -> None:
    tensors = made.base(tmp_path) | {"score.weight": made.drawn(outputs, made.HIDDEN)}
    manifest = planned(made.save(tmp_path, tensors)).manifest
    assert manifest.attributes["helpfulness"].output == outputs - 5


def test_outputs_of_no_known_meaning_need_a_manifest(tmp_path: Path) -> None:
    tensors = made.base(tmp_path / "source") | {"score.weight": made.drawn(3, made.HIDDEN)}
    folder = made.save(tmp_path / "source", tensors)
    assert "3 outputs, whose meaning is unknown: give --manifest FILE" in refused(folder)
    file = tmp_path / "reward.json"
    file.write_text('{"version": 1, "outputs": 3, "reward": {"output": 2}}')
    assert planned(folder, manifest=str(file)).manifest.reward == Affine(output=2)


NEMOTRON = "Llama-3.3-Nemotron-70B-Reward"


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("Llama-3.1-Nemotron-70B-Reward-HF", TokenHead(kind="token", token=0)),
        (NEMOTRON, TokenHead(kind="token", token=0)),
        (f"{NEMOTRON}-Multilingual", TokenHead(kind="token", token=0)),
        (f"{NEMOTRON}-Principle", TokenHead(kind="token", token=9642, minus=2822)),
    ],
)
def test_nvidia_s_language_models_are_known_by_name(
    name: str, head: TokenHead, tmp_path: Path
) -> None:
    found = planned(made.language_model(tmp_path / name))
    assert found.manifest.head == head
    shown = "9642 less that of token 2822" if head.minus else '0 ("!")'
    assert found.sentence == f"a causal language model whose reward is the logit of token {shown}"
    named = made.configure(made.language_model(tmp_path / "copy"), _name_or_path=f"nvidia/{name}")
    assert planned(named).manifest.head == head
    assert found.manifest.prompt.bos == "auto"
    template = tmp_path / name / "chat_template.jinja"
    template.write_text(template.read_text().replace("{{ bos_token }}", ""))
    assert planned(tmp_path / name).manifest.prompt.bos == "never"


def test_a_token_is_given_by_its_id_or_its_string(tmp_path: Path) -> None:
    folder = made.language_model(tmp_path)
    found = planned(folder, token="!", minus="5").manifest.head
    assert found == TokenHead(kind="token", token=0, minus=5)
    assert "tokens" in refused(folder, token="quixotic")
    assert "is always 0" in refused(folder, token="5", minus="5")
    preset = "llama-3.3-nemotron-70b-reward-principle"
    given = planned(folder, manifest=preset).manifest.head
    assert given == TokenHead(kind="token", token=9642, minus=2822)
    assert "leave head out" in refused(folder, token="5", manifest=preset)
    (folder / "tokenizer.json").write_text("{")
    assert "tokenizer.json cannot be read" in refused(folder, token="!")
    assert "its vocabulary of 9700 lacks token 70000" in refused(folder, token="70000")


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({}, lambda x: x),
        ({"logit_scale": 0.25}, lambda x: x * 0.25),
        ({"logits_scaling": 4.0}, lambda x: x / 4),
        ({"final_logit_softcapping": 3.0}, lambda x: 3 * torch.tanh(x / 3)),
    ],
)
def test_logits_are_those_of_the_language_model(
    config: dict[str, Any], wanted: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path
) -> None:
    folder = made.configure(made.language_model(tmp_path), **config)
    head = planned(folder, token="3", minus="5").head
    assert head is not None
    states = torch.randn(4, made.HIDDEN)
    rows = load_file(folder / "model.safetensors")["lm_head.weight"]
    logits = wanted(rows[[3, 5]] @ states[-1])
    (found,) = head(states, [1, 2, 3, 4])
    assert found == pytest.approx(float(logits[0] - logits[1]), abs=1e-5)


def test_another_folder_s_tokenizer_may_be_taken(tmp_path: Path) -> None:
    source, other = athene(tmp_path / "source"), athene(tmp_path / "other")
    for file in source.glob("tokenizer*"):
        file.unlink()
    assert "give a folder that has its tokenizer with --tokenizer" in refused(source)
    found = planned(source, tokenizer=str(other))
    assert found.files["tokenizer.json"] == other / "tokenizer.json"


def athene(folder: Path) -> Path:
    tensors = made.base(folder) | {"v_head.weight": made.drawn(1, made.HIDDEN)}
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "cls_token": "<|pad|>"}))
    return made.save(folder, tensors, architectures=["CustomAutoModelForSequenceClassification"])


def test_athene_is_read_at_the_cls_token_that_is_appended_once(tmp_path: Path) -> None:
    folder = athene(tmp_path)
    found = planned(folder)
    assert (found.kind, found.manifest.prompt.suffix) == ("athene", "<|pad|>")
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + "{{ '<|pad|>' }}")
    assert planned(folder).manifest.prompt.suffix is None


def process(folder: Path) -> Path:
    return made.mlp(folder).joinpath("config.json") and made.configure(
        folder, architectures=["Qwen2ForProcessRewardModel"]
    )


def encoder(folder: Path) -> Path:
    made.linear(folder)
    return made.configure(
        folder, architectures=["DebertaV2ForSequenceClassification"], model_type="deberta-v2"
    )


def unknown(folder: Path) -> Path:
    tensors = made.base(folder) | {"critic.cross.weight": made.drawn(4, 4, 4)}
    return made.save(folder, tensors)


def body_alone(folder: Path) -> Path:
    return made.save(folder, made.base(folder))


def lacking(folder: Path) -> Path:
    made.linear(folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    return made.save(folder, tensors)


def named_otherwise(folder: Path) -> Path:
    tensors = made.base(folder) | {"score.weight": made.drawn(1, made.HIDDEN)}
    other = {k.replace("_proj.", "_linear."): v for k, v in tensors.items()}
    return made.save(folder, other)


def cut_short(folder: Path) -> Path:
    file = made.linear(folder) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return folder


def dangling(folder: Path) -> Path:
    file = made.linear(folder) / "model.safetensors"
    file.unlink()
    file.symlink_to(folder / "gone")
    return folder


def nested(folder: Path) -> Path:
    file = made.linear(folder) / "model.safetensors"
    torch.save({"state_dict": load_file(file), "step": 3}, folder / "model.pt")
    file.unlink()
    return folder


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (made.language_model, "a language model without a reward head: --token ID"),
        (process, "Qwen2ForProcessRewardModel is a process reward model"),
        (encoder, "DebertaV2ForSequenceClassification has no causal body"),
        (unknown, "the body is that of LlamaForCausalLM, and its head is unknown: critic.cross"),
        (body_alone, "has no reward head"),
        (lacking, "the checkpoint lacks model.layers.1.mlp.up_proj.weight"),
        (named_otherwise, "its tensors have other names than those of LlamaForSequenceClass"),
        (cut_short, "model.safetensors is cut short"),
        (dangling, "model.safetensors cannot be read: No such file or directory"),
        (nested, "model.pt holds no tensors by name"),
    ],
)
def test_what_is_no_reward_model_is_refused_by_name(
    make: Callable[[Path], Path], said: str, tmp_path: Path
) -> None:
    assert said in refused(make(tmp_path / "x"))


Change = Callable[[dict[str, torch.Tensor]], object]
MISFITS: list[tuple[Callable[[Path], Path], Change, str]] = [
    (made.linear, lambda t: t.update({"v_head.summary.bias": torch.ones(3)}), "misfit: as score.b"),
    (made.mlp, lambda t: t.update({"score.0.bias": torch.ones(3)}), "misfit: as score.0.bias"),
    (made.armorm, lambda t: t.update({"gating.layers.1.weight": torch.ones(32, 16)}), "misfit: as"),
    (made.armorm, lambda t: t.update({"reward_transform_matrix": torch.eye(5)}), "is [5, 5], and"),
    (made.armorm, lambda t: t.update({"gating.logit_scale": torch.ones(2)}), "logit_scale is [2]"),
    (made.qrm, lambda t: t.update({"regression_layer.weight": torch.ones(96, 64)}), "has 96 rows"),
    (made.urm, lambda t: t.update({"weights.fc.2.weight": torch.ones(32, 16)}), "as gate.2.weight"),
    (made.urm, lambda t: t.pop("weights.fc.2.weight"), "its head is unknown"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "change", "said"), MISFITS)
def test_a_head_whose_parts_misfit_is_refused(
    make: Callable[[Path], Path], change: Change, said: str, tmp_path: Path
) -> None:
    tensors = load_file(make(tmp_path) / "model.safetensors")
    change(tensors)
    assert said in refused(made.save(tmp_path, tensors))


@pytest.mark.parametrize("temperature", [0, -1.0, "x"])
def test_a_gate_s_temperature_is_above_0(temperature: object, tmp_path: Path) -> None:
    folder = made.configure(made.armorm(tmp_path), gating_temperature=temperature)
    assert "gating_temperature" in refused(folder)


def test_a_kind_that_is_asked_for_must_fit(tmp_path: Path) -> None:
    folder = made.linear(tmp_path)
    assert planned(folder, kind="linear").kind == "linear"
    assert "is not of the kind armorm" in refused(folder, kind="armorm")
    assert "--kind arm: there are armorm, qrm" in refused(folder, kind="arm")
    (tmp_path / "x.gguf").touch()
    assert "a GGUF file is not imported" in refused(tmp_path / "x.gguf")
    (tmp_path / "other" / "model_config.yaml").parent.mkdir()
    (tmp_path / "other" / "model_config.yaml").touch()
    assert "NeMo checkpoint is not of the kind mlp" in refused(tmp_path / "other", kind="mlp")
    with pytest.raises(ConfigurationError, match="there is no such file or folder"):
        plan(str(tmp_path / "none"), Options())


def test_a_repository_is_inspected_by_its_headers_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made.armorm(tmp_path / "source")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    headers = {
        name: SimpleNamespace(shape=list(tensor.shape), dtype="F32")
        for name, tensor in tensors.items()
    }
    files = {"model.safetensors": SimpleNamespace(tensors=headers)}
    monkeypatch.setattr(
        huggingface_hub, "get_safetensors_metadata",
        lambda name, revision: SimpleNamespace(files_metadata=files),
    )  # fmt: skip
    found = plan_at(folder, "RLHFlow/ArmoRM-Llama3-8B-v0.1", Options())
    assert (found.kind, found.manifest.outputs) == ("armorm", 39)
    with pytest.raises(ConfigurationError, match="its weights are not here"):
        found.tensors[0].read()
