"""Which tokenizer a NeMo checkpoint's folder gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from fivescore.errors import ConfigurationError
from fivescore.model import tokenizer_file
from fivescore.model.importers import nemo_tokenizer
from fivescore.model.importers.archive import open_files
from tests import checkpoints
from tests.unit.model.importers.test_sentencepiece_model import IDENTITY, train

HUB: dict[str, Any] = {"library": "huggingface", "type": "nobody/nothing"}


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=checkpoints.sentencepiece_like(("<unk>", "<s>")), bos_token="<s>"
    )
    tokenizer.save_pretrained(folder)
    return folder


def write(source: Path, entries: dict[str, Any], given: Path | None = None) -> Any:
    output = source.parent / f"{source.name}-written"
    output.mkdir()
    files = nemo_tokenizer.write(open_files(source), entries, 64, given, output)
    assert all(path.parent == output for path in files.values())
    return tokenizer_file.read(str(output))


def test_hugging_face_s_files_are_kept(tmp_path: Path, hugging_face: Path) -> None:
    source = tmp_path / "nemo"
    place = source / "context" / "nemo_tokenizer"
    place.mkdir(parents=True)
    for file in hugging_face.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    found = write(source, HUB)
    assert (
        found.backend_tokenizer.to_str()
        == tokenizer_file.read(str(hugging_face)).backend_tokenizer.to_str()
    )


def test_a_given_tokenizer_is_taken_as_it_is(tmp_path: Path, hugging_face: Path) -> None:
    source = tmp_path / "nemo"
    source.mkdir()
    (source / "spm.model").write_bytes(b"no model")
    write(source, {"library": "sentencepiece"}, given=hugging_face)
    for file in (tmp_path / "nemo-written").iterdir():
        assert file.read_bytes() == (hugging_face / file.name).read_bytes()


def test_tokens_that_nemo_adds_are_added(tmp_path: Path, hugging_face: Path) -> None:
    (tmp_path / "nemo").mkdir()
    entries = {**HUB, "additional_special_tokens": ["<s>", "<extra_id_0>", "<extra_id_1>"]}
    found = write(tmp_path / "nemo", entries, given=hugging_face)
    size = len(tokenizer_file.read(str(hugging_face)))
    assert found.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_1>"]) == [size, size + 1]


def test_the_named_model_is_taken(tmp_path: Path) -> None:
    source = tmp_path / "nemo"
    source.mkdir()
    (source / "aaa_other.model").write_bytes(b"no model")
    (source / f"{'a1' * 16}_spm.model").write_bytes(train(**IDENTITY))
    entries = {"library": "sentencepiece", "model": f"nemo:{'a1' * 16}_spm.model"}
    found = write(source, entries)
    assert (found.bos_token, found.eos_token, found.model_max_length) == ("<s>", "</s>", 64)
    assert found("A dog", add_special_tokens=False)["input_ids"] == found("A dog")["input_ids"]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (HUB, "tokenizer nobody/nothing cannot be loaded: give its folder with --tokenizer"),
        ({"library": "megatron", "vocab_file": "x"}, "its tokenizer, of 'megatron', is not in it"),
        ({"library": "sentencepiece"}, "its tokenizer, of 'sentencepiece', is not in it"),
    ],
)
def test_no_tokenizer_is_an_error(tmp_path: Path, entries: dict[str, Any], words: str) -> None:
    (tmp_path / "nemo").mkdir()
    with pytest.raises(ConfigurationError, match=words):
        write(tmp_path / "nemo", entries)


def test_a_model_that_cannot_be_converted_is_named(tmp_path: Path) -> None:
    source = tmp_path / "nemo"
    source.mkdir()
    (source / "spm.model").write_bytes(b"no model")
    with pytest.raises(ConfigurationError, match=r"spm\.model: no SentencePiece model, or a dam"):
        write(source, {"library": "sentencepiece"})
