"""The manifest: presets, what is refused and by which name, and checkpoints without one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fivescore.errors import ConfigurationError
from fivescore.model import manifest
from fivescore.model.head import TokenHead
from fivescore.model.manifest import ATTRIBUTES, PRESETS, Affine, Combined, Manifest

GOOD: dict[str, Any] = {
    "version": 1,
    "outputs": 2,
    "attributes": {
        "helpfulness": {"output": 0, "scale": 2.0, "offset": 0.5},
        "verbosity": {"output": 1},
    },
    "reward": {"weights": {"helpfulness": 1.0, "verbosity": -0.2}, "bias": 0.1},
    "prompt": {"format": "steerlm", "system": "Be strict.", "suffix": "!"},
    "max_tokens": 128,
}
SCALAR: dict[str, Any] = {"outputs": 1, "reward": {"output": 0}}

Change = Callable[[dict[str, Any]], object]


def read(folder: Path, content: object) -> Manifest:
    file = folder / "reward.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return manifest.read(str(file))


def test_a_manifest_file_is_read_whole(tmp_path: Path) -> None:
    read_back = read(tmp_path, GOOD)
    assert read_back.attributes["helpfulness"] == Affine(output=0, scale=2.0, offset=0.5)
    assert read_back.attributes["verbosity"] == Affine(output=1, scale=1.0, offset=0.0)
    assert read_back.reward == Combined(weights={"helpfulness": 1.0, "verbosity": -0.2}, bias=0.1)
    assert read_back.prompt.format == "steerlm"
    assert (read_back.prompt.system, read_back.prompt.suffix) == ("Be strict.", "!")
    assert read_back.max_tokens == 128


def proof(outputs: list[Any], sha256: str = "0" * 64) -> dict[str, Any]:
    pair = {"prompt": "Q", "response": "A", "ids_sha256": sha256, "outputs": outputs}
    return {"reference": "transformers", "pairs": [pair]}


def test_a_scalar_manifest_needs_little(tmp_path: Path) -> None:
    read_back = read(tmp_path, SCALAR)
    assert read_back.reward == Affine(output=0)
    assert read_back.attributes == {}
    assert read_back.prompt.format == "chat_template"
    assert read_back.max_tokens is None


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("version", lambda m: m.update(version=3)),
        ("outputs", lambda m: m.update(outputs=0)),
        ("outputs", lambda m: m.pop("outputs")),
        ("reward", lambda m: m.pop("reward")),
        ("weight", lambda m: m["reward"].update(weight={})),
        ("reward.Combined.weights", lambda m: m["reward"].update(weights={})),
        ("weights.helpfulness", lambda m: m["reward"]["weights"].update(helpfulness="high")),
        ("humor", lambda m: m["reward"]["weights"].update(humor=1.0)),
        ("helpfulness reads output 2", lambda m: m["attributes"]["helpfulness"].update(output=2)),
        ("attributes.verbosity.output", lambda m: m["attributes"]["verbosity"].update(output=-1)),
        ("attributes.verbosity.output", lambda m: m["attributes"]["verbosity"].pop("output")),
        ("attributes.verbosity.scal", lambda m: m["attributes"]["verbosity"].update(scal=1)),
        ("Help", lambda m: m["attributes"].update(Help={"output": 0})),
        ("tokens", lambda m: m["attributes"].update(tokens={"output": 0})),
        ("reward", lambda m: m["attributes"].update(reward={"output": 0})),
        ("error", lambda m: m["attributes"].update(error={"output": 0})),
        ("prompt.format", lambda m: m["prompt"].update(format="alpaca")),
        ("prompt.sytem", lambda m: m["prompt"].update(sytem="x")),
        ("max_tokens", lambda m: m.update(max_tokens=0)),
        ("max_token", lambda m: m.update(max_token=1)),
        ('prompt.date needs "version": 2', lambda m: m["prompt"].update(date="2024-07-26")),
        ('proof needs "version": 2', lambda m: m.update(proof=proof([0.0] * 2))),
        ("proof.pairs.0 has 5 outputs", lambda m: m.update(version=2, proof=proof([0.0] * 5))),
        ("proof.pairs.0.outputs.1", lambda m: m.update(version=2, proof=proof([0.0, "x"]))),
        ("proof.pairs.0.ids_sha256", lambda m: m.update(version=2, proof=proof([0.0], "abc"))),
    ],
)
def test_a_fault_names_the_file_and_its_field(tmp_path: Path, field: str, change: Change) -> None:
    wrong = copy.deepcopy(GOOD)
    change(wrong)
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, wrong)
    assert field in caught.value.detail
    assert "reward.json" in caught.value.detail
    assert "Value error" not in caught.value.detail


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["scale", "offset"])
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, field: str, number: str) -> None:
    text = f'{{"outputs": 1, "reward": {{"output": 0, "{field}": {number}}}}}'
    with pytest.raises(ConfigurationError, match=field):
        read(tmp_path, text)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"chat"'])
def test_a_file_that_holds_no_manifest_is_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"reward\.json: manifest: "):
        read(tmp_path, text)


def test_a_scalar_reward_outside_the_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="reward reads output 1, but there are 1"):
        read(tmp_path, {"outputs": 1, "reward": {"output": 1}})


def test_a_name_that_is_neither_file_nor_preset_lists_the_presets() -> None:
    with pytest.raises(ConfigurationError) as caught:
        manifest.read("nemotron")
    assert "nemotron-4-340b-reward" in caught.value.detail
    assert "No such file" in caught.value.detail


@pytest.mark.parametrize(
    ("name", "outputs", "weights", "prompt_format", "max_tokens"),
    [
        ("nemotron-4-340b-reward", 9, (0.3, 0.74, 0.46, 0.47, -0.33), "steerlm", 4096),
        ("llama3-70b-steerlm-rm", 9, (0.65, 0.8, 0.45, 0.55, -0.4), "steerlm", 8192),
        ("helpsteer2", 5, (0.3, 0.74, 0.46, 0.47, -0.33), "chat_template", None),
    ],
)
def test_the_presets_carry_the_published_figures(
    name: str, outputs: int, weights: tuple[float, ...], prompt_format: str, max_tokens: int | None
) -> None:
    preset = manifest.read(name)
    assert preset.outputs == outputs
    assert isinstance(preset.reward, Combined)
    assert preset.reward.weights == dict(zip(ATTRIBUTES, weights, strict=True))
    assert preset.reward.bias == 0.0
    assert preset.prompt.format == prompt_format
    assert preset.max_tokens == max_tokens
    # The five are the last five of a head, in HelpSteer2's order.
    order = [preset.attributes[name].output for name in ATTRIBUTES]
    assert order == list(range(outputs - 5, outputs))


def test_the_scalar_preset_of_nemotron_70b_reads_its_one_output() -> None:
    preset = PRESETS["llama-3.1-nemotron-70b-reward"]
    assert (preset.outputs, preset.reward, preset.max_tokens) == (1, Affine(output=0), 4096)
    assert preset.prompt.format == "chat_template"


@pytest.mark.parametrize(
    ("name", "token", "minus", "bos"),
    [
        ("llama-3.1-nemotron-70b-reward", 0, None, "auto"),
        ("llama-3.3-nemotron-70b-reward", 0, None, "never"),
        ("llama-3.3-nemotron-70b-reward-principle", 9642, 2822, "auto"),
    ],
)
def test_a_preset_of_a_language_model_reads_its_token(
    name: str, token: int, minus: int | None, bos: str
) -> None:
    preset = PRESETS[name]
    assert preset.head == TokenHead(kind="token", token=token, minus=minus)
    assert preset.prompt.bos == bos


def test_a_head_without_a_manifest_is_read_by_its_number_of_outputs() -> None:
    nine = PRESETS["nemotron-4-340b-reward"].model_copy(update={"max_tokens": None})
    assert manifest.for_outputs(5) == PRESETS["helpsteer2"]
    assert manifest.for_outputs(9) == nine
    assert manifest.for_outputs(1) == Manifest(outputs=1, reward=Affine(output=0))


def test_a_line_break_in_a_name_does_not_break_the_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"attributes\.\\n\.") as caught:
        read(tmp_path, {"outputs": 1, "attributes": {"\n": None}})
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize("outputs", [2, 4, 6, 19])
def test_another_number_of_outputs_says_what_works(tmp_path: Path, outputs: int) -> None:
    with pytest.raises(ConfigurationError) as caught:
        manifest.for_outputs(outputs)
    detail = caught.value.detail
    assert "--manifest" in detail
    example = detail[detail.index("{") : detail.rindex("}") + 1]
    assert read(tmp_path, example).outputs == outputs
