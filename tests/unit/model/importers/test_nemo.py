"""A NeMo checkpoint as a whole: its layouts, and what is wrong with one in a line."""

from __future__ import annotations

import gc
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fivescore.errors import ConfigurationError
from fivescore.model.architecture import MOST_CHARACTERS
from fivescore.model.importers import nemo
from fivescore.model.manifest import PRESETS, Manifest
from tests.nemo.made_folders import KEPT
from tests.unit.model.importers.test_restricted_pickle import Hostile

MADE = KEPT / "torch_dist-llama-layers-tp2"
CONFIG = "model_config.yaml"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MADE, tmp_path / "copy"))


def configure(folder: Path, **entries: Any) -> None:
    found = yaml.safe_load((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(yaml.dump({**found, **entries}))


def refusal(source: Path) -> str:
    with pytest.raises(ConfigurationError) as raised:
        nemo.plan(source)
    assert "\n" not in raised.value.detail
    assert len(raised.value.detail) <= MOST_CHARACTERS, raised.value.detail
    return raised.value.detail


def test_the_sentence_says_what_it_is() -> None:
    assert nemo.plan(MADE).sentence == (
        "a NeMo checkpoint (torch_dist) of a Llama body with 9 outputs of rm_head at the last"
        " token, weighted as llama3-70b-steerlm-rm"
    )


def test_nemo_2_s_folders_are_read(copy: Path) -> None:
    """The same weights under NeMo 2's names and configuration."""
    first = nemo.plan(MADE)
    entries = yaml.safe_load((copy / CONFIG).read_text())
    newer = {
        "config": {
            **{
                name: entries[name]
                for name in (
                    "num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads",
                    "num_query_groups", "kv_channels", "layernorm_epsilon", "rotary_base",
                )
            },
            "normalization": "RMSNorm",
            "activation_func": {"_target_": "torch.nn.functional.silu", "_call_": False},
            "gated_linear_unit": True,
            "add_bias_linear": False,
            "seq_length": entries["encoder_seq_length"],
        },
        "tokenizer": {"_target_": "nemo.SentencePieceTokenizer", "model_path": "tokenizer.model",
                      "special_tokens": entries["tokenizer"]["additional_special_tokens"]},
    }  # fmt: skip
    (copy / "context").mkdir()
    (copy / "context" / "model.yaml").write_text(yaml.dump(newer))
    (copy / CONFIG).unlink()
    (copy / "model_weights").rename(copy / "weights")
    second = nemo.plan(copy)
    assert second.config == first.config
    assert second.manifest.attributes == first.manifest.attributes
    for one, other in zip(first.tensors, second.tensors, strict=True):
        assert one.name == other.name
        assert torch.equal(one.read(), other.read())


def test_an_archive_may_have_a_folder_around_it(copy: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.nemo", "w:") as archive:
        archive.add(copy, arcname="checkpoint")
    plan = nemo.plan(tmp_path / "a.nemo")
    assert plan.manifest.source is not None
    assert plan.manifest.source.from_ == "a.nemo"
    assert [t.name for t in plan.tensors] == [t.name for t in nemo.plan(MADE).tensors]


def test_pickles_that_say_nothing_of_the_weights_stay_closed(copy: Path) -> None:
    (copy / "model_weights" / "common.pt").write_bytes(pickle.dumps(Hostile(os._exit, 1)))
    for tensor in nemo.plan(copy).tensors:
        tensor.read()


def test_the_tokenizer_s_files_go_with_the_plan() -> None:
    plan = nemo.plan(MADE)
    path = plan.files["tokenizer.json"]
    assert path.is_file()
    del plan
    gc.collect()
    assert not path.exists()


def test_other_outputs_need_a_manifest(copy: Path) -> None:
    manifest = PRESETS["nemotron-4-340b-reward"]
    assert nemo.plan(copy, manifest=manifest).manifest.reward == manifest.reward
    other = Manifest.model_validate({"outputs": 2, "reward": {"output": 0}})
    with pytest.raises(ConfigurationError, match="the manifest says outputs: 2, the checkpoint's"):
        nemo.plan(copy, manifest=other)


def remove(path: str) -> Callable[[Path], object]:
    return lambda folder: (folder / path).unlink()


def old_layout(folder: Path) -> None:
    shutil.rmtree(folder / "model_weights")
    for rank in ("tp_rank_00_pp_rank_000", "tp_rank_01_pp_rank_000"):
        (folder / rank).mkdir()
        (folder / rank / "model_weights.ckpt").write_bytes(b"")


def one_rank(folder: Path) -> None:
    shutil.rmtree(folder / "model_weights")
    (folder / "model_weights.ckpt").write_bytes(b"")


def backend(name: Any) -> Callable[[Path], object]:
    content = json.dumps({"sharded_backend": name})
    return lambda folder: (folder / "model_weights" / "metadata.json").write_text(content)


def standardise(folder: Path) -> None:
    configure(folder, reward_standardization={"enable": True, "mean": 1.0, "std": 2.0})


def many_tokens(folder: Path) -> None:
    tokens = [f"<extra_id_{number}>" for number in range(500)]
    configure(folder, tokenizer={"library": "sentencepiece", "additional_special_tokens": tokens})


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (remove(CONFIG), "no NeMo checkpoint: it has no model_config.yaml or context/model.yaml"),
        (remove("model_weights/metadata.json"), "model_weights/metadata.json is not: fetch it"),
        (remove("model_weights/.metadata"), ".metadata is missing"),
        (remove("model_weights/__1_0.distcp"), "__1_0.distcp is missing, which has parts of"),
        (old_layout, "one file per rank (tp_rank_00_pp_rank_000): convert it"),
        (one_rank, "one file per rank (model_weights.ckpt): convert it"),
        (backend("fsdp"), "the weights' format is 'fsdp'; torch_dist and zarr are read"),
        (backend([]), "the weights' format is '[]'; torch_dist and zarr are read"),
        (standardise, "reward_standardization is for one output, and rm_head has 9"),
        (many_tokens, "its tokenizer has 900 tokens, and its embedding 448 rows"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    copy: Path, break_it: Callable[[Path], object], words: str
) -> None:
    break_it(copy)
    assert words in refusal(copy)
