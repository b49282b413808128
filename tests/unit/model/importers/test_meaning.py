"""At which token a head is read, where the pad token ends the chat template."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fivescore.model.importers.meaning import settled
from fivescore.model.importers.options import Options
from fivescore.model.importers.recognition import plan
from fivescore.model.tokenizer_file import read
from tests.checkpoints import LLAMA_EOT
from tests.unit.model.importers import made


@pytest.mark.parametrize(
    ("make", "name", "end"),
    [
        (made.linear, "score", "last_not_pad"),  # transformers' classes skip it
        (made.linear, "v_head.summary", "rendered"),  # value heads go by the attention mask
        (made.mlp, "score", "last_not_pad"),
        (made.mlp, "v_head.summary", "rendered"),
    ],
)
def test_a_pad_token_at_the_end_is_read_by_value_heads_alone(
    make: Callable[[Path, str], Path], name: str, end: str, tmp_path: Path
) -> None:
    source = make(tmp_path, name)
    pad = read(str(source)).convert_tokens_to_ids(LLAMA_EOT)
    made.configure(source, pad_token_id=pad)
    assert settled(plan(str(source), Options())).manifest.prompt.end == end
