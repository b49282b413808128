"""What a manifest leaves open is one line at the load, with both readings."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fivescore.model import doubts
from fivescore.model.checkpoint import Checkpoint
from fivescore.model.conversation import Conversation
from fivescore.model.manifest import PromptFormat
from fivescore.settings import DEMO, Settings
from tests.unit.model import made_templates as made
from tests.unit.model import sample_tokenizers as samples

Make = Callable[[], Any]
LLAMA2_WITHOUT_BOS = partial(samples.llama2, template_has_bos=False)
"""The tokenizer adds a BOS that the template does not write."""


def found(make: Make, pad: str | None = None, **prompt: Any) -> list[str]:
    reference = make()
    pad_id = None if pad is None else reference.convert_tokens_to_ids(pad)
    chosen = PromptFormat.model_validate(prompt)
    return doubts.find(chosen, Conversation(chosen, reference, pad_id), reference, pad_id)


@pytest.mark.parametrize(
    ("make", "pad", "prompt", "words"),
    [
        (samples.demo, "<|eot_id|>", {}, ["'<|eot_id|>'", "'A'", '"last_not_pad"']),
        (samples.chatml, None, {}, [r"'\n'", "'<|im_end|>'", "EOS", '"eos"']),
        (samples.chatml_by_fine_tuning, None, {}, ["'<|endoftext|>'", '"rendered"']),
        (lambda: made.tokenizer(made.DATED), None, {"end": "eos"}, ["day", '"date"']),
        (LLAMA2_WITHOUT_BOS, None, {}, ["'<s>'", "apply_chat_template", '"never"']),
    ],
)
def test_a_doubt_names_the_readings_and_the_field(
    make: Make, pad: str | None, prompt: dict[str, str], words: list[str]
) -> None:
    (line,) = found(make, pad, **prompt)
    for word in words:
        assert word.replace("'A'", "'x'") in line
    assert line.isprintable()


@pytest.mark.parametrize(
    ("make", "pad", "prompt"),
    [
        (samples.demo, "<|pad|>", {}),
        (samples.demo, None, {}),
        (samples.demo, "<|eot_id|>", {"end": "rendered"}),
        (samples.demo, "<|eot_id|>", {"end": "last_not_pad"}),
        (LLAMA2_WITHOUT_BOS, None, {"bos": "never"}),
        (LLAMA2_WITHOUT_BOS, None, {"format": "raw"}),
        (partial(samples.llama2, template_has_bos=True), None, {}),
        (samples.chatml, None, {"end": "rendered"}),
        (samples.chatml, None, {"end": "eos"}),
        (samples.chatml, None, {"suffix": "score:"}),
        (samples.chatml, None, {"format": "raw"}),
        (lambda: made.tokenizer(made.DATED), None, {"end": "eos", "date": "2026-02-03"}),
    ],
)
def test_where_the_manifest_decides_there_is_none(
    make: Make, pad: str | None, prompt: dict[str, str]
) -> None:
    assert found(make, pad, **prompt) == []


def test_the_load_says_each_once_and_reads_the_pad_token_of_the_configuration(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    eot = samples.demo().convert_tokens_to_ids("<|eot_id|>")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": eot}))
    manifest = json.loads((folder / "reward.json").read_text())
    (folder / "reward.json").write_text(json.dumps({**manifest, "version": 2, "prompt": {}}))
    with caplog.at_level(logging.WARNING):
        checkpoint = Checkpoint(Settings(model=str(folder)))
        checkpoint.conversation()
    (record,) = caplog.records
    assert '"last_not_pad"' in record.message
