"""torch's distributed checkpoints are read piece by piece, and what is wrong is said at once."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from torch.distributed import checkpoint

from fivescore.errors import ConfigurationError
from fivescore.model.architecture import MOST_CHARACTERS
from fivescore.model.importers.archive import open_files
from fivescore.model.importers.sharded import Region
from fivescore.model.importers.torch_dist import TorchDist
from tests.nemo.made_folders import KEPT
from tests.unit.model.importers.test_restricted_pickle import Hostile

MADE = KEPT / "torch_dist-llama-layers-tp2" / "model_weights"
SPLIT = "model.decoder.layers.1.mlp.linear_fc1.weight"


def opened(folder: Path) -> TorchDist:
    return TorchDist(open_files(folder))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MADE, tmp_path / "weights"))


def refused(folder: Path, *patterns: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        opened(folder).check([SPLIT])
    for pattern in patterns:
        assert re.search(pattern, raised.value.detail), raised.value.detail
    assert len(raised.value.detail) <= MOST_CHARACTERS


def test_what_torch_saves_is_read(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(5, 7), "b": torch.randn(3).bfloat16(), "c": torch.tensor(2)}
    with warnings.catch_warnings(action="ignore"):  # that it saves without other processes
        checkpoint.save(dict(tensors), checkpoint_id=tmp_path, no_dist=True)
    store = opened(tmp_path)
    store.check(list(tensors))
    for name, values in tensors.items():
        assert torch.equal(store.read(name, store.tensors[name].part()), values)
    assert torch.equal(store.read("a", Region((1, 2), (3, 4))), tensors["a"][1:4, 2:6])


def test_a_region_may_span_pieces() -> None:
    store = opened(MADE)
    stored = store.tensors[SPLIT]
    whole = store.read(SPLIT, stored.part())
    assert whole.shape == (96, 32)
    assert torch.equal(store.read(SPLIT, Region((20, 3), (60, 9))), whole[20:80, 3:12])
    assert torch.equal(store.read(SPLIT, stored.part(rows=(24, 48))), whole[24:48])


def test_a_hostile_index_is_refused_in_one_line(copy: Path, tmp_path: Path) -> None:
    hostile = Hostile(os.system, f"touch {tmp_path}/ran")
    (copy / ".metadata").write_bytes(pickle.dumps(hostile))
    refused(copy, r"\.metadata holds more than an index", r"posix\.system")
    assert not (tmp_path / "ran").exists()


def test_a_hostile_piece_is_refused(copy: Path, tmp_path: Path) -> None:
    for file in copy.glob("*.distcp"):
        size = file.stat().st_size
        torch.save(Hostile(os.system, f"touch {tmp_path}/ran"), file)
        file.write_bytes(file.read_bytes().ljust(size, b"\0"))
    store = opened(copy)
    with pytest.raises(ConfigurationError, match=f"is damaged where {SPLIT} is"):
        store.read(SPLIT, store.tensors[SPLIT].part())
    assert not (tmp_path / "ran").exists()


def test_a_damaged_index_is_refused(copy: Path) -> None:
    (copy / ".metadata").write_bytes((copy / ".metadata").read_bytes()[:-40])
    refused(copy, r"\.metadata is damaged")
    (copy / ".metadata").write_bytes(pickle.dumps({"a": 1}))
    refused(copy, r"\.metadata is damaged")
    (copy / ".metadata").unlink()
    refused(copy, r"\.metadata is missing")


def test_a_missing_file_is_named(copy: Path) -> None:
    for file in copy.glob("__1_*.distcp"):
        file.unlink()
    refused(copy, r"__1_\d+\.distcp is missing, which has parts of model\.decoder")


def test_a_truncated_file_is_named(copy: Path) -> None:
    for file in copy.glob("__0_*.distcp"):
        os.truncate(file, 100)
    refused(copy, r"__0_\d+\.distcp is cut short: it has 100 bytes")


def test_a_part_outside_of_its_tensor_is_refused(copy: Path) -> None:
    index = pickle.loads((copy / ".metadata").read_bytes())
    index.state_dict_metadata[SPLIT].chunks[0].sizes = torch.Size([200, 32])
    (copy / ".metadata").write_bytes(pickle.dumps(index))
    refused(copy, r"\.metadata is damaged")


def test_an_index_without_a_part_is_refused(copy: Path) -> None:
    index = pickle.loads((copy / ".metadata").read_bytes())
    index.state_dict_metadata[SPLIT].chunks.pop()
    (copy / ".metadata").write_bytes(pickle.dumps(index))
    refused(copy, r"has 2304 of the 3072 elements of model\.decoder")
