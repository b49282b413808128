"""No pickle runs code: what is not known is refused, and what is known is a record."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata

from fivescore.model.importers import restricted_pickle

KNOWN = {"torch.distributed.checkpoint.metadata": ("ChunkStorageMetadata",), "megatron.core": ()}


class Hostile:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.made_by = (function, arguments)

    def __reduce__(self) -> Any:
        return self.made_by


@pytest.mark.parametrize(
    "function", [os.system, eval, getattr, __import__, torch.load, pickle.loads, Path]
)
def test_a_function_is_refused_and_not_run(tmp_path: Path, function: Any) -> None:
    content = pickle.dumps(Hostile(function, f"touch {tmp_path}/ran"))
    with pytest.raises(restricted_pickle.NotKnown, match="it names "):
        restricted_pickle.load(content, KNOWN, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("megatron.corecorrupt", "A"),
        ("megatron", "core"),
        ("megatron.core.x", "A.b"),
        ("torch.distributed.checkpoint.metadata", "os.system"),
        ("torch.distributed.checkpoint.metadata", "Metadata"),
    ],
)
def test_names_beside_the_known_ones_are_refused(module: str, name: str) -> None:
    content = b"\x80\x04" + b"".join(
        b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)
    )
    with pytest.raises(restricted_pickle.NotKnown, match="it names "):
        restricted_pickle.load(content + b"\x93.", KNOWN, {})


def test_a_known_class_is_a_record_of_its_state() -> None:
    chunk = ChunkStorageMetadata(torch.Size([1, 2]), torch.Size([3, 4]))
    content = pickle.dumps(OrderedDict(a=chunk, b={1, 2}))
    found = restricted_pickle.load(content, KNOWN, {"torch.Size": tuple})
    assert found["b"] == {1, 2}
    assert found["a"].kind == "ChunkStorageMetadata"
    assert found["a"].state == {"offsets": (1, 2), "sizes": (3, 4)}
