"""Names and shapes of a checkpoint's tensors, from its files' headers; and single tensors."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fivescore.errors import first_line
from fivescore.model.architecture import refusal
from fivescore.model.engine_options import merged
from fivescore.settings import Settings

if TYPE_CHECKING:
    import torch

SAFETENSORS, CONSOLIDATED = "*.safetensors", "consolidated*.safetensors"
PATTERNS = {
    "auto": (SAFETENSORS, "*.bin", "*.pt"),
    "hf": (SAFETENSORS, "*.bin", "*.pt"),
    "safetensors": (SAFETENSORS,),
    "fastsafetensors": (SAFETENSORS,),
    "instanttensor": (SAFETENSORS,),
    "runai_streamer": (SAFETENSORS,),
    "mistral": (CONSOLIDATED,),
    "pt": ("*.pt",),
    "npcache": ("*.bin", "*.pt"),
}
"""Files that vLLM reads, by ``--engine.load-format``: those of the first pattern that has any."""
TRAINERS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
"""Ends of the names of files that vLLM leaves out: a trainer's state."""
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SHARD = re.compile(r"(.*-)(\d+)(-of-)(\d+)(\.\w+)")
MOST_HEADER_BYTES = 100 * 2**20
"""What the safetensors format allows a header to have."""
HEAD_FILE = re.compile(r"(value|v|rm|reward|score|regression)_?head")
"""Names of files that hold a head alone, as LLaMA-Factory's ``value_head.bin``."""
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64",
    "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
"""The names of torch's dtypes in safetensors."""
POINTER = b"version https://git-lfs"

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file.

    Args:
        dtype: its name in safetensors, such as ``BF16``.
    """

    file: Path
    name: str
    shape: Shape
    dtype: str

    def read(self) -> Any:
        """The tensor in memory, and nothing else of the file."""
        return read_tensor(self.file, self.name)


@dataclass(frozen=True, slots=True)
class Tensors:
    """The tensors of a checkpoint.

    Args:
        shapes: by name, of the files that the engine reads.
        beside: the same of files that it does not read, such as one that the index does not name.
        consolidated: whether the files are Mistral's own, with names of their own.
    """

    shapes: Mapping[str, Shape]
    beside: Mapping[str, Shape] = field(default_factory=dict)
    consolidated: bool = False


def shapes(model: str, revision: str | None = None) -> Mapping[str, Shape]:
    """The shapes by name of a checkpoint that is here, in Hugging Face's format.

    Raises:
        ConfigurationError: it is not here; or a file is damaged, or holds a program.
    """
    found = _here(model, revision).read("hf")
    return {} if found is None else found.shapes


def load(
    model: str, revision: str | None, names: Set[str], rows: Sequence[int] | None = None
) -> dict[str, torch.Tensor]:
    """Those of the tensors that there are, in float32.

    Args:
        rows: which rows are read; all without it.

    Raises:
        ConfigurationError: as ``shapes``.
    """
    return _here(model, revision).load(names, rows)


def folder(model: str, revision: str | None) -> Path | None:
    """The folder of a checkpoint that is here whole, or in the hub's cache; else None."""
    found, whole = _folder(model, revision, None)
    return found if whole else None


def _here(model: str, revision: str | None) -> _Reader:
    folder, _ = _folder(model, revision, None)
    if folder is None:
        raise refusal(model, "its weights are neither a folder nor in the hub's cache")
    return _Reader(model, folder, whole=True)


def read(settings: Settings) -> Tensors | None:
    """The tensors that vLLM would load; None where that cannot be known.

    It cannot for formats that vLLM alone reads, and for weights that are still to be downloaded.

    Raises:
        ConfigurationError: a file is missing, cut short, damaged or holds a program.
    """
    options = merged(settings.engine)
    load_format = str(options.get("load_format", "auto"))
    folder, whole = _folder(settings.model, settings.revision, options.get("download_dir"))
    if folder is None or load_format not in PATTERNS:
        return None
    return _Reader(settings.model, folder, whole).read(load_format)


def stored(folder: Path, shown: str) -> dict[str, Stored]:
    """Every tensor of a folder in Hugging Face's layout, by name.

    Safetensors count where there are any, with a head that lies beside them in another format;
    else ``.bin`` and ``.pt`` files. Mistral's own files count only where they are alone.

    Args:
        shown: the folder's name in errors.

    Raises:
        ConfigurationError: a file is missing, cut short, damaged or holds a program; or two files
            hold tensors of one name that the index does not choose between.
    """
    return _Reader(shown, folder, whole=True).stored()


def read_tensor(file: Path, name: str) -> Any:
    """A tensor of a safetensors file or of a ``.bin`` or ``.pt`` file."""
    if file.suffix != ".safetensors":
        return _load_pickled(file, "cpu")[name].contiguous()
    from safetensors import safe_open

    # Opened each time, so that the pages of other tensors do not stay mapped.
    with safe_open(file, framework="pt") as opened:
        return opened.get_tensor(name)


def _folder(model: str, revision: str | None, cache: Any) -> tuple[Path | None, bool]:
    """The folder of the checkpoint's files, and whether no more of them will come."""
    from huggingface_hub import is_offline_mode, try_to_load_from_cache

    folder = Path(model)
    if folder.is_dir():
        return folder, True
    for name in (*INDICES, "model.safetensors", "pytorch_model.bin", "config.json"):
        found = try_to_load_from_cache(model, name, cache, revision=revision)
        if isinstance(found, str):
            return Path(found).parent, is_offline_mode()
    return None, False


class _Incomplete(Exception):
    """A file is missing that the engine will download."""


class _Reader:
    """Reads the files of a folder.

    Args:
        whole: whether a missing file is an error; otherwise it may still be downloaded.
    """

    def __init__(self, model: str, folder: Path, whole: bool) -> None:
        self._model = model
        self._folder = folder
        self._whole = whole

    def read(self, load_format: str) -> Tensors | None:
        """The tensors; None without files, or where some are still to be downloaded."""
        files, consolidated = self._files(load_format)
        try:
            return self._tensors(files, consolidated) if files else None
        except _Incomplete:
            return None

    def load(self, names: Set[str], rows: Sequence[int] | None) -> dict[str, torch.Tensor]:
        """Some tensors, or some of their rows, in float32."""
        files, consolidated = self._files("hf")
        read, _, _ = self._chosen(files, consolidated) if files else ([], [], {})
        return {name: tensor for file in read for name, tensor in _values(file, names, rows)}

    def _files(self, load_format: str) -> tuple[list[Path], bool]:
        """The files of the first pattern that has any, and whether they are Mistral's own."""
        patterns = PATTERNS[load_format]
        if load_format == "auto" and any(self._folder.glob(CONSOLIDATED)):
            patterns = (CONSOLIDATED,)
        files: list[Path] = []
        for pattern in patterns:
            files = files or sorted(self._folder.glob(pattern))
        files = [file for file in files if not file.name.endswith(TRAINERS)]
        return files, patterns == (CONSOLIDATED,)

    def stored(self) -> dict[str, Stored]:
        """The tensors of all files of the folder that hold weights."""
        safe = self._weights(SAFETENSORS)
        plain = [file for file in safe if not file.match(CONSOLIDATED)]
        pickled = [*self._weights("*.bin"), *self._weights("*.pt")]
        heads = [file for file in pickled if HEAD_FILE.search(file.name)]
        files = [*(plain or safe), *heads] if safe else pickled
        if not files:
            return {}
        index = self._index(INDICES[not safe])
        self._check_all_there({*index.values(), *_series(files)})
        found: dict[str, Stored] = {}
        for file in files:
            for name, one in self._headers(file).items():
                if index.get(name, file.name) != file.name:
                    continue
                if name in found:
                    raise self._damaged(f"{found[name].file.name} and {file.name} both hold {name}")
                found[name] = one
        for name, file_name in index.items():
            if name not in found:
                raise self._damaged(f"{file_name} lacks {name}, which the index promises")
        self._check_any(found, files)
        return found

    def _check_any(self, found: Mapping[str, Any], files: Sequence[Path]) -> None:
        if not found:
            raise refusal(
                self._model,
                f"{files[0].name} holds no tensors by name: save the model's state dict alone",
            )

    def _weights(self, pattern: str) -> list[Path]:
        files = sorted(self._folder.glob(pattern))
        return [file for file in files if not file.name.endswith(TRAINERS)]

    def _tensors(self, files: list[Path], consolidated: bool) -> Tensors:
        read, beside, index = self._chosen(files, consolidated)
        found = {file.name: self._shapes(file) for file in read}
        for tensor, file_name in index.items():
            if tensor not in found.get(file_name, {}):
                raise self._damaged(f"{file_name} lacks {tensor}, which the index promises")
        others = _merged(map(self._shapes, beside))
        shapes = _merged(found.values())
        self._check_any(shapes, files)
        return Tensors(shapes, others, consolidated)

    def _chosen(
        self, files: list[Path], consolidated: bool
    ) -> tuple[list[Path], list[Path], dict[str, str]]:
        """The files that are read, those beside them, and the index."""
        safe = files[0].suffix == ".safetensors"
        name = INDICES[not safe]
        index = self._index(name.replace("model", "consolidated", 1) if consolidated else name)
        self._check_all_there({*index.values(), *_series(files)})
        read, beside = files, []
        if safe and index:  # vLLM reads all .bin files, whatever their index says
            read = [file for file in files if file.name in index.values()]
            beside = [file for file in files if file.name not in index.values()]
        return read, beside, index

    def _index(self, name: str) -> dict[str, str]:
        """The index's file for each tensor; empty without an index."""
        path = self._folder / name
        if not path.is_file():
            return {}
        try:
            index = json.loads(path.read_bytes())["weight_map"]
            return {str(tensor): str(file) for tensor, file in index.items()}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._damaged(f"{name} is no index of tensors") from error

    def _check_all_there(self, names: Iterable[str]) -> None:
        missing = sorted(name for name in names if not (self._folder / name).is_file())
        if missing and not self._whole:
            raise _Incomplete
        if missing:
            more = f" and {len(missing) - 1} more" if missing[1:] else ""
            raise self._damaged(f"{missing[0]}{more} of its weights' files are missing")

    def _shapes(self, file: Path) -> dict[str, Shape]:
        return {name: header.shape for name, header in self._headers(file).items()}

    def _headers(self, file: Path) -> dict[str, Stored]:
        try:
            size = file.stat().st_size
            with file.open("rb") as stream:
                start = stream.read(len(POINTER))
        except OSError as error:
            raise refusal(self._model, f"{file.name} cannot be read: {error.strerror}") from error
        if start == POINTER:
            raise refusal(
                self._model, f"{file.name} is a pointer of Git LFS, not weights: run git lfs pull"
            )
        if file.suffix == ".safetensors":
            return self._safetensors(file, size)
        return self._pickled(file)

    def _safetensors(self, file: Path, size: int) -> dict[str, Stored]:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header_bytes = stream.read(length) if length <= min(size, MOST_HEADER_BYTES) else b""
        try:
            header = json.loads(header_bytes)
            header.pop("__metadata__", None)
            found = {
                name: Stored(file, name, tuple(map(int, entry["shape"])), str(entry["dtype"]))
                for name, entry in header.items()
            }
            ends = [int(entry["data_offsets"][1]) for entry in header.values()]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._damaged(
                f"{file.name} is damaged: it has {size} bytes and no whole header"
            ) from error
        promised = 8 + length + max(ends, default=0)
        if promised > size:
            raise self._damaged(
                f"{file.name} is cut short: its header promises {promised} bytes, it has {size}"
            )
        return found

    def _pickled(self, file: Path) -> dict[str, Stored]:
        try:
            found = _load_pickled(file)
        except pickle.UnpicklingError as error:
            raise refusal(
                self._model,
                f"{file.name} holds more than tensors, and reading it would run code: save the"
                " weights as safetensors",
            ) from error
        except Exception as error:  # torch raises many types for a damaged file
            raise self._damaged(f"{file.name} cannot be read: {first_line(error)[:60]}") from error
        items = found.items() if isinstance(found, dict) else ()
        return {
            str(name): Stored(file, name, tuple(value.shape), dtype_name(value.dtype))
            for name, value in items
            if hasattr(value, "shape")
        }

    def _damaged(self, what: str) -> Exception:
        return refusal(self._model, f"{what}; fetch it again")


def dtype_name(dtype: Any) -> str:
    """The name in safetensors of a dtype of torch; its own name where it has none there."""
    text = str(dtype).removeprefix("torch.")
    return DTYPES.get(text, text.upper())


def _load_pickled(file: Path, place: str = "meta") -> Any:
    import torch

    try:
        return torch.load(file, map_location=place, weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        # The format before torch 1.6, which cannot be mapped.
        return torch.load(file, map_location=place, weights_only=True)


def _values(
    file: Path, names: Set[str], rows: Sequence[int] | None
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a file with these names, or their rows, in float32."""
    import torch
    from safetensors import safe_open

    if file.suffix != ".safetensors":
        for name, tensor in _load_pickled(file, "cpu").items():
            if name in names:
                yield name, (tensor if rows is None else tensor[list(rows)]).float()
        return
    with safe_open(file, framework="pt") as opened:
        for name in names & set(opened.keys()):
            if rows is None:
                yield name, opened.get_tensor(name).float()
            else:
                part = opened.get_slice(name)
                yield name, torch.cat([part[row : row + 1] for row in rows]).float()


def _series(files: Iterable[Path]) -> set[str]:
    """The names of all shards of the series that the files' names are of."""
    names: set[str] = set()
    for file in files:
        if found := SHARD.fullmatch(file.name):
            before, number, of, count, after = found.groups()
            numbers = range(1, int(count) + 1) if int(count) < 10_000 else ()
            names |= {f"{before}{n:0{len(number)}}{of}{count}{after}" for n in numbers}
    return names


def _merged(tensors: Iterable[Mapping[str, Shape]]) -> dict[str, Shape]:
    return {name: shape for each in tensors for name, shape in each.items()}
