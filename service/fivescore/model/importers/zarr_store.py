"""Megatron's zarr format: a folder for each tensor, with a file for each piece.

tensorstore decodes the pieces, bfloat16 among them, which zarr itself does not know
(megatron/core/dist_checkpointing/strategies/zarr.py).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fivescore.errors import ConfigurationError
from fivescore.model.architecture import refusal
from fivescore.model.importers.archive import Files
from fivescore.model.importers.sharded import Region, Shape, Stored

if TYPE_CHECKING:
    import torch

ARRAY = ".zarray"
MOST_ARRAY_BYTES = 2**16
DTYPES = {
    "bfloat16": "bfloat16", "<f4": "float32", "<f2": "float16", "<f8": "float64", "<i8": "int64",
    "<i4": "int32", "<i2": "int16", "|i1": "int8", "|u1": "uint8", "|b1": "bool",
}  # fmt: skip
"""torch's names of the types that zarr writes on little-endian machines."""


@dataclass(frozen=True, slots=True)
class _Array:
    stored: Stored
    chunk: Shape
    separator: str
    chunk_bytes: int | None
    """The size of a piece's file; None where they are compressed."""

    def pieces(self, region: Region) -> Iterator[tuple[str, Region]]:
        """The names of the files that have a part of a region, and the part."""
        axes = [
            range(start // size, (start + length - 1) // size + 1)
            for start, length, size in zip(region.start, region.shape, self.chunk, strict=True)
        ]
        for place in itertools.product(*axes):
            start = tuple(number * size for number, size in zip(place, self.chunk, strict=True))
            part = Region(start, self.chunk).common(region)
            assert part is not None
            yield self.separator.join(map(str, place)) or "0", part


class ZarrStore:
    """The tensors of a folder of zarr arrays.

    Raises:
        ConfigurationError: the description of an array is damaged, or tensorstore is not installed.
    """

    def __init__(self, files: Files) -> None:
        try:
            import tensorstore  # noqa: F401
        except ImportError as error:
            raise ConfigurationError(
                "a NeMo checkpoint in zarr needs tensorstore: pip install 'fivescore[import]'"
            ) from error
        self._files = files
        self._arrays: dict[str, _Array] = {}
        for path in files:
            name, _, file = path.rpartition("/")
            if file == ARRAY:
                self._arrays[name] = self._array(path)
        self._stored = {name: array.stored for name, array in self._arrays.items()}

    @property
    def tensors(self) -> Mapping[str, Stored]:
        return self._stored

    def check(self, names: Sequence[str]) -> None:
        for name in names:
            array = self._arrays[name]
            for file, _ in array.pieces(array.stored.part()):
                member = self._files.get(f"{name}/{file}")
                if member is None:
                    raise refusal(self._files.shown, f"{name}/{file} is missing: fetch it again")
                if array.chunk_bytes not in (None, member.size):
                    raise refusal(
                        self._files.shown,
                        f"{name}/{file} has {member.size} bytes in place of {array.chunk_bytes}:"
                        " fetch it again",
                    )

    def read(self, name: str, region: Region) -> torch.Tensor:
        import torch

        array = self._arrays[name]
        result: torch.Tensor | None = None
        for file, part in array.pieces(region):
            values = self._decode(name, file, part)
            if part == region:
                return values
            if result is None:
                result = torch.empty(region.shape, dtype=array.stored.dtype)
            result[part.within(region.start)] = values
            del values
        assert result is not None
        return result

    def _decode(self, name: str, file: str, part: Region) -> torch.Tensor:
        """What lies in one file."""
        import tensorstore

        # tensorstore reads no part of an archive, so it gets the file's bytes in memory.
        context = tensorstore.Context()
        pieces = tensorstore.KvStore.open({"driver": "memory"}, context=context).result()
        for each in (ARRAY, file):
            member = self._files[f"{name}/{each}"]
            pieces[each] = member.read(member.size)
        try:
            opened = tensorstore.open(
                {"driver": "zarr", "kvstore": {"driver": "memory"}}, context=context
            ).result()
            values = opened[part.within((0,) * len(part.start))].read().result()
        except ValueError as error:
            raise refusal(self._files.shown, f"{name} is damaged: fetch it again") from error
        return _as_torch(values, self._stored[name].dtype)

    def _array(self, path: str) -> _Array:
        import torch

        try:
            found = json.loads(self._files.read(path, MOST_ARRAY_BYTES))
            dtype = getattr(torch, DTYPES[found["dtype"]])
            shape, chunk = (tuple(map(int, found[key])) for key in ("shape", "chunks"))
            plain = found["compressor"] is None and not found.get("filters")
            size = math.prod(chunk) * dtype.itemsize if plain else None
            if len(shape) != len(chunk) or min(chunk, default=1) < 1:
                raise ValueError("shape and chunks differ")
            return _Array(Stored(shape, dtype), chunk, found.get("dimension_separator", "."), size)
        except (ValueError, LookupError, TypeError) as error:
            raise refusal(
                self._files.shown, f"{path} describes no array that is known: fetch it again"
            ) from error


def _as_torch(values: Any, dtype: torch.dtype) -> torch.Tensor:
    import torch

    if dtype is torch.bfloat16:  # which numpy knows by tensorstore alone, and torch not from it
        return torch.from_numpy(values.view("int16")).view(dtype)
    return torch.from_numpy(values)
