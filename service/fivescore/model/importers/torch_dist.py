"""The format of ``torch.distributed.checkpoint``, without running its pickled index.

``FileSystemReader`` unpickles ``.metadata`` as it is, and reads files by their paths alone; here
the index is read as plain records, and a tensor from wherever its file lies, in an archive too.
Each piece is a file of ``torch.save`` of its own inside a ``.distcp`` file
(torch/distributed/checkpoint/filesystem.py, metadata.py).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fivescore.errors import first_line
from fivescore.model.architecture import refusal
from fivescore.model.importers import restricted_pickle
from fivescore.model.importers.archive import Files
from fivescore.model.importers.restricted_pickle import Record
from fivescore.model.importers.sharded import Region, Shape, Stored

if TYPE_CHECKING:
    import torch

INDEX = ".metadata"
MOST_INDEX_BYTES = 2**28
"""A bound for the index; that of 100 layers on 64 ranks has some megabytes."""
KNOWN = {
    "torch.distributed.checkpoint.metadata": (
        "Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata",
        "TensorProperties", "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING",
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo", "_StoragePrefix"),
    "torch.distributed.checkpoint.planner": (
        "SavePlan", "WriteItem", "WriteItemType", "TensorWriteData", "BytesIOWriteData",
    ),
    "pathlib": ("PosixPath", "PurePosixPath", "Path"),
    "megatron.core": (),
}  # fmt: skip
"""Classes that an index names: torch's, and Megatron's of 0.13 to 0.15, which are not read."""
DTYPES = (
    "float32", "float64", "float16", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool",
    "float8_e4m3fn", "float8_e5m2",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Piece:
    region: Region
    file: str
    offset: int
    length: int


class TorchDist:
    """The tensors of a folder of ``.distcp`` files and their index.

    Raises:
        ConfigurationError: the index is missing or damaged, or names code.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        content = files.read(INDEX, MOST_INDEX_BYTES)
        try:
            index = restricted_pickle.load(content, KNOWN, _values())
            self._stored, self._pieces = _tensors(index)
        except restricted_pickle.NotKnown as error:
            raise refusal(
                files.shown,
                f"{INDEX} holds more than an index of tensors ({first_line(error):.60}), and is"
                " not read: it could run code",
            ) from error
        except Exception as error:  # pickle raises many types for a damaged file
            raise refusal(
                files.shown, f"{INDEX} is damaged ({type(error).__name__}): fetch it again"
            ) from error

    @property
    def tensors(self) -> Mapping[str, Stored]:
        return self._stored

    def check(self, names: Sequence[str]) -> None:
        for name in names:
            shape, covered = self._stored[name].shape, 0
            for piece in self._pieces[name]:
                covered += math.prod(piece.region.shape)
                if piece.file not in self._files:
                    raise refusal(
                        self._files.shown, f"{piece.file} is missing, which has parts of {name}"
                    )
                size, end = self._files[piece.file].size, piece.offset + piece.length
                if end > size:
                    raise refusal(
                        self._files.shown,
                        f"{piece.file} is cut short: it has {size} bytes, and {name} ends at {end}",
                    )
            if covered != math.prod(shape):
                raise refusal(
                    self._files.shown,
                    f"{INDEX} has {covered} of the {math.prod(shape)} elements of {name}",
                )

    def read(self, name: str, region: Region) -> torch.Tensor:
        import torch

        result: torch.Tensor | None = None
        for piece in self._pieces[name]:
            common = piece.region.common(region)
            if common is None:
                continue
            values = self._load(name, piece)[common.within(piece.region.start)]
            if common == region:
                return values.contiguous()
            if result is None:
                result = torch.empty(region.shape, dtype=self._stored[name].dtype)
            result[common.within(region.start)] = values
            del values
        assert result is not None, "check() found all elements"
        return result

    def _load(self, name: str, piece: _Piece) -> torch.Tensor:
        import torch

        try:
            with self._files[piece.file].open(piece.offset, piece.length) as stream:
                values = torch.load(stream, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types for a damaged file
            raise refusal(
                self._files.shown, f"{piece.file} is damaged where {name} is: fetch it again"
            ) from error
        wanted = (piece.region.shape, self._stored[name].dtype)
        if not isinstance(values, torch.Tensor) or (tuple(values.shape), values.dtype) != wanted:
            raise refusal(
                self._files.shown, f"{piece.file} has another tensor than {INDEX} says for {name}"
            )
        return values.detach()


def _values() -> dict[str, Any]:
    import torch

    dtypes = {f"torch.{name}": getattr(torch, name) for name in DTYPES}
    return {"torch.Size": tuple, "torch.serialization._get_layout": str, **dtypes}


def _tensors(index: Any) -> tuple[dict[str, Stored], dict[str, list[_Piece]]]:
    """Shapes and pieces of the tensors that an index's records describe."""
    places: dict[tuple[str, Shape], Record] = {}
    for key, info in index.state["storage_data"].items():
        offset = key.state.get("offset")
        if offset is not None:
            places[key.state["fqn"], tuple(offset)] = info
    stored: dict[str, Stored] = {}
    pieces: defaultdict[str, list[_Piece]] = defaultdict(list)
    for name, record in index.state["state_dict_metadata"].items():
        if record.kind != "TensorStorageMetadata":
            continue
        stored[name] = Stored(_shape(record.state["size"]), record.state["properties"].state[0])
        for chunk in record.state["chunks"]:
            start, shape = _shape(chunk.state["offsets"]), _shape(chunk.state["sizes"])
            region = Region(start, shape)
            if region.common(stored[name].part()) != region:
                raise ValueError(f"a part of {name} lies outside of it")
            pieces[name].append(_piece(region, places[name, start].state))
    return stored, dict(pieces)


def _shape(values: Any) -> Shape:
    return tuple(map(int, values))


def _piece(region: Region, place: Mapping[str, Any]) -> _Piece:
    if place.get("transform_descriptors"):
        raise restricted_pickle.NotKnown(f"pieces are {place['transform_descriptors']}")
    return _Piece(region, str(place["relative_path"]), int(place["offset"]), int(place["length"]))
