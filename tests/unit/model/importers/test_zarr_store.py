"""zarr arrays as Megatron writes them, and as zarr may."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fivescore.errors import ConfigurationError
from fivescore.model.importers.archive import open_files
from fivescore.model.importers.sharded import Region
from fivescore.model.importers.zarr_store import ZarrStore

tensorstore = pytest.importorskip("tensorstore")
VALUES = np.arange(7 * 5, dtype="float32").reshape(7, 5)


def save(folder: Path, values: Any, **metadata: Any) -> ZarrStore:
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": str(folder / "a")},
        "metadata": {"chunks": [3, 2], **metadata},
    }
    array = tensorstore.open(spec, create=True, dtype=values.dtype, shape=values.shape).result()
    array.write(values).result()
    return ZarrStore(open_files(folder))


@pytest.mark.parametrize(
    "metadata",
    [{"compressor": None}, {"compressor": {"id": "zlib", "level": 1}}, {"order": "F"}],
    ids=["plain", "zlib", "F"],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_region_is_read_from_the_pieces_that_have_it(
    tmp_path: Path, metadata: dict[str, Any], dtype: str
) -> None:
    values = VALUES.astype(tensorstore.bfloat16.numpy_dtype if dtype == "bfloat16" else dtype)
    store = save(tmp_path, values, **metadata)
    store.check(["a"])
    whole = store.read("a", store.tensors["a"].part())
    assert whole.dtype == store.tensors["a"].dtype == getattr(torch, dtype)
    assert np.array_equal(whole.float().numpy(), VALUES)
    for name in ("0.0", "0.1", "0.2"):  # other pieces are not looked at
        (tmp_path / "a" / name).unlink()
    region = Region((4, 1), (3, 3))
    assert np.array_equal(store.read("a", region).float().numpy(), VALUES[4:7, 1:4])


def test_a_missing_piece_is_named(tmp_path: Path) -> None:
    save(tmp_path, VALUES, compressor=None)
    (tmp_path / "a" / "1.2").unlink()
    with pytest.raises(ConfigurationError, match=r"a/1\.2 is missing"):
        ZarrStore(open_files(tmp_path)).check(["a"])


def test_a_truncated_piece_is_named(tmp_path: Path) -> None:
    save(tmp_path, VALUES, compressor=None)
    os.truncate(tmp_path / "a" / "2.0", 20)
    with pytest.raises(ConfigurationError, match=r"a/2\.0 has 20 bytes in place of 24"):
        ZarrStore(open_files(tmp_path)).check(["a"])


def test_a_damaged_piece_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    save(tmp_path, VALUES, compressor={"id": "zlib", "level": 1})
    (tmp_path / "a" / "0.0").write_bytes(b"no zlib")
    store = ZarrStore(open_files(tmp_path))
    with pytest.raises(ConfigurationError, match="a is damaged"):
        store.read("a", store.tensors["a"].part())


@pytest.mark.parametrize(
    "change", [{"dtype": "<c8"}, {"chunks": [3]}, {"chunks": [0, 2]}, {"shape": "x"}]
)
def test_an_unknown_description_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    save(tmp_path, VALUES)
    path = tmp_path / "a" / ".zarray"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigurationError, match=r"a/\.zarray describes no array"):
        ZarrStore(open_files(tmp_path))
