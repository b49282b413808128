"""Whole runs on tiny models: they learn, resume, merge, spread, and write what is served."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import DistributedType
from matplotlib import image
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from fivescore.cli import main
from fivescore.errors import ConfigurationError
from fivescore.model.checkpoint import Checkpoint
from fivescore.model.manifest import ATTRIBUTES, Manifest
from fivescore.model.manifest import read as read_manifest
from fivescore.model.reward import score
from fivescore.settings import Settings
from fivescore.training.export import export
from fivescore.training.model import load_config, load_model
from fivescore.training.recipe import load
from fivescore.training.train import train
from fivescore.types import Pair
from tests.checkpoints import STEERLM_MANIFEST, steerlm
from tests.training import validation_pairs, write_data, write_lines

pytestmark = [
    # The Trainer's libraries warn of their own and of each other's plans.
    pytest.mark.filterwarnings("default"),
    pytest.mark.usefixtures("one_thread"),
]
Json = dict[str, Any]
BATCH = {"batch_size": 16, "micro_batch_size": 8, "learning_rate": 3e-3, "warmup_steps": 2}
LORA = {"lora_rank": 4, "lora_dropout": 0.1}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other are slow on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(backbone: Path, rows: Path, tmp_path: Path) -> Callable[..., Path]:
    """Train with small defaults; gives the output folder."""

    def start(name: str = "out", **given: Any) -> Path:
        defaults = {"data": str(rows), "model": str(backbone), "output": tmp_path / name}
        recipe = load({**defaults, **BATCH, **given})
        train(recipe)
        return recipe.output

    return start


def record_of(folder: Path) -> Json:
    found: Json = json.loads((folder / "training.json").read_text())
    return found


def losses(folder: Path) -> dict[int, float]:
    return {e["step"]: e["loss"] for e in record_of(folder)["history"] if "loss" in e}


def validation_losses(folder: Path) -> dict[int, float]:
    return {e["step"]: e["eval_mse"] for e in record_of(folder)["history"] if "eval_mse" in e}


def predictions(folder: Path) -> list[Json]:
    return [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]


def served(folder: Path, pairs: list[Pair]) -> list[dict[str, float]]:
    """What the server's own code, with transformers for an engine, makes of the folder."""
    checkpoint = Checkpoint(Settings(model=str(folder)))
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    model.config.pad_token_id = None
    manifest = json.loads((folder / "reward.json").read_text())
    answers = []
    for ids in checkpoint.conversation().encode(pairs):
        assert isinstance(ids, list)
        with torch.no_grad():
            raw = model(input_ids=torch.tensor([ids])).logits[0].tolist()
        found = score(raw, checkpoint._manifest_for(manifest["outputs"]), tokens=len(ids))
        answers.append({**found.attributes, "reward": found.reward})
    return answers


def assert_proved(folder: Path) -> None:
    """The folder has a proof, of the weights and the tokenizer that are in it."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    model.config.pad_token_id = None
    samples = Checkpoint(Settings(model=str(folder))).samples()
    assert len(samples) >= 5
    for sample in samples:
        with torch.no_grad():
            raw = model(input_ids=torch.tensor([sample.token_ids])).logits[0].tolist()
        assert raw == pytest.approx(sample.pair.outputs, abs=1e-5)


def assert_served_as_predicted(folder: Path, rows: Path, tolerance: float = 1e-4) -> None:
    pairs = [Pair.model_validate(pair) for pair in validation_pairs(rows)]
    answers, expected = served(folder, pairs), predictions(folder)
    assert len(answers) == len(expected)
    for answer, row in zip(answers, expected, strict=True):
        for name in ATTRIBUTES:
            assert answer[name] == pytest.approx(row[name], abs=tolerance)


def test_a_tiny_model_overfits_32_rows(run: Callable[..., Path], tmp_path: Path) -> None:
    data = write_data(tmp_path / "few", train=32)
    shutil.copy(data / "train.jsonl", data / "validation.jsonl")
    folder = run(data=str(data), batch_size=32, micro_batch_size=32, steps=150, evaluate_every=50)
    assert min(validation_losses(folder).values()) < 0.05
    found = record_of(folder)["validation"]
    for name in ATTRIBUTES:
        assert found[name]["mse"] < 0.1 < found[name]["constant_mse"], name
        assert found[name]["pearson"] > 0.9


def test_a_run_starts_at_the_constant_predictor(run: Callable[..., Path]) -> None:
    folder = run(steps=1, learning_rate=1e-9)
    for name, fit in record_of(folder)["validation"].items():
        assert fit["mse"] == pytest.approx(fit["constant_mse"], rel=0.15), name


@pytest.mark.parametrize("lora", [{}, LORA], ids=["all weights", "LoRA with dropout"])
def test_a_resumed_run_equals_one_that_was_not_interrupted(
    run: Callable[..., Path], tmp_path: Path, lora: Json
) -> None:
    settings = {"steps": 6, "evaluate_every": 2, "keep_checkpoints": 3, **lora}
    whole = run("whole", **settings)
    stopped = tmp_path / "stopped" / "checkpoints"
    shutil.copytree(whole / "checkpoints", stopped)
    shutil.rmtree(stopped / "checkpoint-6")
    # A process that is killed while it writes leaves a checkpoint that is not complete.
    (stopped / "checkpoint-4" / "trainer_state.json").unlink()
    resumed = run("stopped", **settings, resume=True)
    assert losses(resumed) == losses(whole)
    assert validation_losses(resumed) == validation_losses(whole)
    assert predictions(resumed) == predictions(whole)
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_merged_lora_is_served_as_it_was_validated(run: Callable[..., Path], rows: Path) -> None:
    folder = run(steps=8, learning_rate=1e-2, **LORA)
    assert not list(folder.glob("adapter*"))
    assert record_of(folder)["trained_parameters"] < record_of(folder)["parameters"]
    assert_served_as_predicted(folder, rows)


def test_all_weights_are_served_as_they_were_validated(
    run: Callable[..., Path], rows: Path
) -> None:
    folder = run(steps=8, gradient_checkpointing=True)
    assert_served_as_predicted(folder, rows)
    plain = run("plain", steps=8)
    assert losses(folder) == pytest.approx(losses(plain), abs=1e-5)


def test_a_reward_model_with_another_meaning_is_trained_on(
    run: Callable[..., Path], rows: Path, tmp_path: Path
) -> None:
    """NeMo's nine outputs, scales and offsets, its format, and a padding id that ends texts."""
    model = steerlm(tmp_path / "steerlm")
    folder = run(model=str(model), steps=6, learning_rate=1e-3)
    written = read_manifest(str(folder / "reward.json"))
    kept = written.model_dump(exclude={"version", "source", "proof"})
    before = Manifest.model_validate(STEERLM_MANIFEST)
    assert kept == before.model_dump(exclude={"version", "source", "proof"})
    assert_proved(folder)
    assert losses(folder)[6] < losses(folder)[1]
    assert_served_as_predicted(folder, rows)


def test_the_best_checkpoint_is_exported(run: Callable[..., Path], rows: Path) -> None:
    folder = run(steps=12, evaluate_every=1, learning_rate=0.1)  # far too much: it gets worse
    found = validation_losses(folder)
    best = min(found, key=found.__getitem__)
    record = record_of(folder)
    assert record["best_step"] == best < 12
    counts = {name: fit["rows"] for name, fit in record["validation"].items()}
    exported = sum(fit["mse"] * counts[name] for name, fit in record["validation"].items())
    assert exported / sum(counts.values()) == pytest.approx(found[best])
    assert_served_as_predicted(folder, rows)


def test_a_half_precision_body_has_a_float32_head(run: Callable[..., Path], rows: Path) -> None:
    folder = run(steps=4, dtype="bfloat16")
    weights = load_file(folder / "model.safetensors")
    head = weights.pop("score.weight")
    assert head.dtype == torch.float32
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert_served_as_predicted(folder, rows, tolerance=0.1)


def test_micro_batches_do_not_change_the_loss(run: Callable[..., Path]) -> None:
    """Some labels are missing, so a mean of means would."""
    one, other = run("one", steps=3, micro_batch_size=16), run("other", steps=3, micro_batch_size=2)
    assert losses(one) == pytest.approx(losses(other), abs=1e-5)
    assert validation_losses(one) == pytest.approx(validation_losses(other), abs=1e-5)


def test_two_processes_give_the_loss_of_one(
    run: Callable[..., Path], backbone: Path, rows: Path, tmp_path: Path
) -> None:
    one, two = run("one", steps=4, micro_batch_size=4), tmp_path / "two"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu",
                "--num_processes", "2", "--main_process_port", "0", "-m", "fivescore"]  # fmt: skip
    flags = ["--data", str(rows), "--model", str(backbone), "--output", str(two),
             "--batch-size", "16", "--micro-batch-size", "4", "--learning-rate", "3e-3",
             "--warmup-steps", "2", "--steps", "4"]  # fmt: skip
    done = subprocess.run(
        [*launcher, "train", *flags],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("train: 64 rows, 64 used") == 1
    assert record_of(two)["devices"] == 2
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    assert validation_losses(two) == pytest.approx(validation_losses(one), abs=1e-5)
    for row, expected in zip(predictions(two), predictions(one), strict=True):
        assert row == pytest.approx(expected, abs=1e-4)


def test_preferences_train_the_reward_of_the_first_stage(
    run: Callable[..., Path], preferences: Path, rows: Path
) -> None:
    first = run("first", steps=4)
    second = run("second", stage="preference", model=str(first), data=str(preferences), steps=20,
                 learning_rate=1e-3)  # fmt: skip
    record = record_of(second)
    assert record["validation"]["preference"]["accuracy"] >= 0.8
    found = record["validation"]["preference"]
    assert found["loss"] < found["constant_loss"]
    assert "preference_strength is 0: neither response is better" in record["data"]["train"][
        "unusable"
    ]  # fmt: skip
    assert_proved(second)  # by a proof of its own, not the first one's
    manifests = [json.loads((f / "reward.json").read_text()) for f in (first, second)]
    assert manifests[0]["attributes"] == manifests[1]["attributes"]
    assert manifests[1]["reward"] == {"weights": {"helpfulness": 1.0}, "bias": 0.0}
    lines = map(json.loads, (preferences / "preference" / "preference.jsonl").read_text()
                .splitlines())  # fmt: skip
    held_out = [r for r in lines if r["split"] == "val" and r["preference_strength"]]
    pairs = [
        Pair(prompt=r["prompt"], response=r[f"response_{i}"]) for r in held_out for i in (1, 2)
    ]
    expected = [value for row in predictions(second) for value in row["helpfulness"]]
    assert [a["reward"] for a in served(second, pairs)] == pytest.approx(expected, abs=1e-4)


def test_what_a_run_leaves_behind(run: Callable[..., Path], rows: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "rows")
    with (data / "train.jsonl").open("a") as lines:
        lines.write('{broken\n{"prompt": "a", "response": "", "helpfulness": 1}\n')
    folder = run("model", data=str(data), steps=20, seed=7, weights="helpfulness=1,verbosity=-0.5")
    names = {file.name for file in folder.iterdir()}
    assert names == {
        "README.md", "chat_template.jinja", "checkpoints", "config.json", "model.safetensors",
        "reward.json", "tokenizer.json", "tokenizer_config.json", "training.json", "training.png",
        "validation.jsonl",
    }  # fmt: skip
    record = record_of(folder)
    assert record["data"]["train"]["unusable"] == {
        "the line is not JSON": 1, "empty response": 1
    }  # fmt: skip
    assert record["command"] == (
        f"fivescore train --data {data} --model {record['recipe']['model']} --output {folder}"
        " --weights helpfulness=1.0,verbosity=-0.5 --steps 20 --batch-size 16 --micro-batch-size 8"
        " --learning-rate 0.003 --warmup-steps 2 --seed 7"
    )
    assert record["versions"].keys() >= {"python", "torch", "transformers", "peft", "fivescore"}
    card = (folder / "README.md").read_text()
    assert record["command"] in card
    for name, fit in record["validation"].items():
        cells = (fit["rows"], *(f"{fit[k]:.3f}" for k in ("mse", "constant_mse", "pearson")))
        assert f"| {name} | {' | '.join(map(str, cells))} |" in card
    for told in ("| train | not used: empty response | 1 | train.jsonl:66 |", "| seed | 7 |",
                 "| train | used | 64 |", f"torch {record['versions']['torch']}",
                 "+1 helpfulness -0.5 verbosity", "](training.png)"):  # fmt: skip
        assert told in card
    plot = image.imread(folder / "training.png")
    assert plot.shape[0] > 300
    assert plot.shape[1] > 800
    assert len(np.unique(plot.reshape(-1, plot.shape[-1]), axis=0)) > 20  # something is drawn


def test_a_sharded_lora_is_merged_into_a_fresh_model(backbone: Path, tmp_path: Path) -> None:
    """What FSDP and DeepSpeed leave is one state without the shards' modules."""
    recipe = load({"data": "d", "model": str(backbone), "output": tmp_path, **LORA})
    config = load_config(recipe)

    def fresh() -> Any:
        return load_model(recipe, config, ATTRIBUTES, "float32")

    model = fresh()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.1)
    ids = {"input_ids": torch.tensor([[[5, 6, 7]]]), "attention_mask": torch.ones(1, 1, 3).long()}
    expected = model.eval()(**ids).logits[0, 0].tolist()
    accelerator = SimpleNamespace(
        distributed_type=DistributedType.FSDP,
        is_main_process=True,
        unwrap_model=lambda _: None,
        get_state_dict=lambda wrapped: wrapped.state_dict(),
    )
    trainer = SimpleNamespace(accelerator=accelerator, model=model, model_wrapped=model)
    conversation = Checkpoint(Settings(model=str(backbone)))
    export(trainer, fresh, conversation._tokenizer, conversation._manifest_for(5), "float32",
           tmp_path / "out")  # fmt: skip
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert merged(input_ids=ids["input_ids"][0]).logits[0].tolist() == pytest.approx(
        expected, abs=1e-5
    )


def test_a_backbone_without_a_chat_template_gets_one(
    run: Callable[..., Path], backbone: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(backbone, bare)
    template = (bare / "chat_template.jinja").rename(tmp_path / "template.jinja")
    with pytest.raises(ConfigurationError, match="has no chat template: give one with"):
        run(model=str(bare), steps=1)
    template.write_text("{{ strftime_now('%Y') }}" + template.read_text())
    folder = run(model=str(bare), steps=1, chat_template=template)
    assert (folder / "chat_template.jinja").read_text() == template.read_text()
    prompt = Manifest.model_validate_json((folder / "reward.json").read_bytes()).prompt
    assert prompt.date is not None, "served on another day, the template writes that of training"
    assert "end" in prompt.model_fields_set, "the head is trained at the last token"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"model": "/no/such/folder"}, "there is no such folder"),
        ({"data": "/no/such/file.jsonl"}, "there is no such file or folder"),
        ({"chat_template": "/no/such/file"}, "--chat-template /no/such/file: "),
        ({"batch_size": 128}, "do not fill --batch-size 128"),
        ({"prompt_format": "raw", "data": "messages"}, "no train row can be used: the prompt"),
        ({"learning_rate": 1e6, "steps": 8}, "the loss is not finite: lower --learning-rate"),
    ],
)
def test_what_cannot_be_trained_is_told(
    run: Callable[..., Path], tmp_path: Path, given: Json, told: str
) -> None:
    if given.get("data") == "messages":
        messages = [{"role": "user", "content": "x"}]
        row = {"prompt": messages, "response": "y", "helpfulness": 1}
        file = write_lines(tmp_path / "messages.jsonl", [row])
        given = {**given, "data": str(file), "validation": file}
    with pytest.raises(ConfigurationError) as caught:
        run(**{"epochs": 1, **given} if "steps" not in given else given)
    assert told in caught.value.detail
    assert "\n" not in caught.value.detail


def test_an_attribute_without_labels_is_not_served(
    run: Callable[..., Path], tmp_path: Path
) -> None:
    lines = [{"prompt": "a", "response": "b", "helpfulness": i % 4} for i in range(16)]
    file = write_lines(tmp_path / "rows.jsonl", lines)
    data = {"data": str(file), "validation": file, "steps": 1}
    with pytest.raises(ConfigurationError, match="no training row has a label for correctness, "):
        run(**data)
    folder = run(**data, attributes="helpfulness")
    manifest = json.loads((folder / "reward.json").read_text())
    assert manifest["attributes"] == {"helpfulness": {"output": 0, "scale": 1.0, "offset": 1.5}}


def test_the_command_trains(
    backbone: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--data", str(rows), "--model", str(backbone), "--output",
                 str(tmp_path / "out"), "--batch-size", "32", "--micro-batch-size", "32",
                 "--learning-rate", "1e-3"]  # fmt: skip
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "validation: 16 rows, 16 used" in captured.err
    assert "they start random, with seed 1" in captured.err
    assert "step 4: validation mse" in captured.err
    assert "fivescore serve --model" in captured.err
