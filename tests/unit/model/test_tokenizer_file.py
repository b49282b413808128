"""The tokenizer that serves, trains and reads policies' texts is the one of tokenizer.json."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

from fivescore.model import tokenizer_file
from fivescore.model.checkpoint import Checkpoint
from fivescore.settings import DEMO, Settings
from fivescore.training.model import load_tokenizer
from fivescore.training.recipe import Recipe
from fivescore.types import Pair
from tests.unit.model import sample_tokenizers as samples

LLAMA2 = partial(samples.llama2, template_has_bos=True)
TEXT = "def f(x):\n    return  x\n\nHello there, it's  12345 \u6f22\u5b57 na\u00efve"
REBUILT = [
    pytest.param(samples.demo, "LlamaTokenizerFast", id="byte level as Llama"),
    pytest.param(samples.chatml, "LlamaTokenizer", id="byte level, other split, as Llama"),
    pytest.param(samples.demo, "Qwen2Tokenizer", id="byte level as Qwen2"),
    pytest.param(LLAMA2, "GPT2Tokenizer", id="SentencePiece as GPT2"),
    pytest.param(LLAMA2, "GPTNeoXTokenizerFast", id="SentencePiece as GPTNeoX"),
]


def saved(folder: Path, make: Callable[[], Any], tokenizer_class: str, **config: Any) -> Path:
    make().save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    written = json.loads(file.read_text())
    file.write_text(json.dumps({**written, "tokenizer_class": tokenizer_class, **config}))
    return folder


def ids(tokenizer: Any) -> list[int]:
    found: list[int] = tokenizer.encode(TEXT, add_special_tokens=False)
    return found


def file_ids(folder: Path) -> list[int]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return list(tokenizer.encode(TEXT, add_special_tokens=False).ids)


@pytest.mark.parametrize(("make", "tokenizer_class"), REBUILT)
def test_the_ids_are_the_files_where_the_class_has_others(
    make: Callable[[], Any], tokenizer_class: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = saved(tmp_path, make, tokenizer_class)
    assert ids(AutoTokenizer.from_pretrained(folder)) != file_ids(folder)
    tokenizer = tokenizer_file.read(str(folder))
    assert ids(tokenizer) == file_ids(folder)
    assert tokenizer.chat_template == make().chat_template
    assert tokenizer.special_tokens_map == make().special_tokens_map
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "tokenizer.json is used" in record.message
    assert "\n" not in record.message


@pytest.mark.parametrize("make", [samples.demo, samples.chatml, LLAMA2, samples.unigram])
def test_a_class_with_the_files_ids_is_left_alone(
    make: Callable[[], Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = saved(tmp_path, make, "PreTrainedTokenizerFast")
    assert ids(tokenizer_file.read(str(folder))) == file_ids(folder)
    assert not caplog.records


@pytest.mark.parametrize("tokenizer_class", ["LlamaTokenizerFast", "PreTrainedTokenizerFast"])
def test_tokens_that_tokenizer_config_adds_are_there(tmp_path: Path, tokenizer_class: str) -> None:
    folder = saved(tmp_path, samples.chatml, tokenizer_class)
    size = len(samples.chatml())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    added = {"content": "<|score|>", "special": True, "normalized": False}
    flags = dict.fromkeys(("lstrip", "rstrip", "single_word"), False)
    config["added_tokens_decoder"] = {str(size): {**added, **flags}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = tokenizer_file.read(str(folder))
    assert tokenizer.encode("<|score|>", add_special_tokens=False) == [size]
    assert ids(tokenizer) == file_ids(folder)


def test_bos_and_eos_that_the_class_names_or_adds_are_right(tmp_path: Path) -> None:
    """GPT-NeoX's class names its EOS itself, and puts no BOS before a text as the file does."""
    make = partial(samples.gpt_neox, adds_bos=True)
    folder = saved(tmp_path, make, "GPTNeoXTokenizerFast")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for name in ("bos_token", "eos_token"):
        del config[name]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = tokenizer_file.read(str(folder))
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|endoftext|>", "<|endoftext|>")
    assert tokenizer.unk_token is None or tokenizer.unk_token in make().get_vocab()
    whole = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids
    assert whole[0] == tokenizer.bos_token_id
    assert tokenizer.encode(TEXT) == whole


def test_saved_truncation_and_padding_make_no_difference(tmp_path: Path) -> None:
    folder = saved(tmp_path, samples.chatml, "LlamaTokenizerFast")
    samples.saved_with_truncation_and_padding().save(str(folder / "tokenizer.json"))
    tokenizer = tokenizer_file.read(str(folder)).backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    assert tokenizer.encode(TEXT, add_special_tokens=False).ids == ids(samples.chatml())


def test_a_hub_id_is_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    commit = "0" * 40
    cache = tmp_path / "models--org--model"
    folder = saved(cache / "snapshots" / commit, samples.demo, "LlamaTokenizerFast")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert ids(tokenizer_file.read("org/model")) == file_ids(folder)


@pytest.fixture
def rebuilt(tmp_path: Path) -> Path:
    """The demo checkpoint with a tokenizer class that loses its white space."""
    folder = tmp_path / "model"
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return saved(folder, samples.demo, "LlamaTokenizerFast")


def test_it_serves_trains_and_reads_policies(rebuilt: Path) -> None:
    settings = Settings(model=str(rebuilt), policy_tokenizer=str(rebuilt))
    pair = Pair(prompt=TEXT, response=TEXT)
    expected = Checkpoint(Settings(model=DEMO)).conversation().encode([pair])
    assert Checkpoint(settings).conversation().encode([pair]) == expected
    recipe = Recipe(data="data", model=str(rebuilt), output=rebuilt / "out")
    assert ids(load_tokenizer(recipe)) == file_ids(rebuilt)


def test_a_token_with_the_white_space_around_it_is_the_files(tmp_path: Path) -> None:
    """Phi-3's turn tokens swallow the white space after them, in the file and in the class."""
    make = samples.chatml
    folder = saved(tmp_path, make, "LlamaTokenizerFast")
    file = Tokenizer.from_file(str(folder / "tokenizer.json"))
    file.add_tokens([AddedToken("<|turn|>", rstrip=True, special=True, normalized=False)])
    file.save(str(folder / "tokenizer.json"))
    found = tokenizer_file.read(str(folder)).encode("<|turn|>\n x", add_special_tokens=False)
    assert found == file.encode("<|turn|>\n x", add_special_tokens=False).ids
