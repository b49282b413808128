"""Writes the folder of an import: shard by shard, and tensor by tensor within one.

Memory holds one tensor. A shard gets its own name when it is whole, and config.json and reward.json
are written last, so that an import that was interrupted looks like no checkpoint; started again, it
keeps the shards that are there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fivescore.errors import ConfigurationError, first_line
from fivescore.model import manifest as manifests
from fivescore.model import tensors
from fivescore.model.importers.plan import Plan, PlannedTensor
from fivescore.model.manifest import Manifest

MOST_SHARD_BYTES = 5 * 10**9
"""Bytes of tensors in a file, as transformers' ``max_shard_size`` of 5 GB had them."""
CHUNK = 2**26
"""Bytes that are written at once, between two steps of the progress."""
SPARE_BYTES = 2**26
"""Free bytes that are wanted beside the weights, for the other files."""
STATE = ".fivescore-import.json"
"""The file that marks a folder as an unfinished import."""
PART = ".part"
BYTES = {
    "F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
"""Bytes of an element by its dtype's name in safetensors."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of the new checkpoint.

    Args:
        link: the source's file that it is; None where it is written.
    """

    name: str
    tensors: Sequence[PlannedTensor]
    link: Path | None = None

    @property
    def header(self) -> bytes:
        """The head of a safetensors file: the header's length, and the header as JSON."""
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        start = 0
        for tensor in self.tensors:
            end = start + size(tensor)
            entries[tensor.name] = {
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "data_offsets": [start, end],
            }
            start = end
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # the format aligns what follows
        return len(text).to_bytes(8, "little") + text

    @property
    def bytes(self) -> int:
        """The file's size."""
        return len(self.header) + sum(map(size, self.tensors))


class Writer:
    """Writes a plan's weights into a folder.

    Args:
        folder: new, empty, or of the same import that was interrupted.
        source: the source's file or folder.
        link: whether files of the source that hold nothing but unchanged tensors are linked.

    Raises:
        ConfigurationError: the folder holds something else, or the disk has too little room.
    """

    def __init__(self, plan: Plan, folder: Path, source: Path, link: bool = False) -> None:
        self._plan = plan
        self._folder = folder
        self._shards = shards(plan.tensors, link)
        _check_apart(folder, source)
        self._open(_identity(plan, source, link))

    @property
    def bytes(self) -> int:
        """Bytes of the weights that are written, those of finished shards among them."""
        return sum(shard.bytes for shard in self._shards if shard.link is None)

    def write(self, progress: Any) -> None:
        """Write the weights, their index, and the tokenizer's files.

        Args:
            progress: has ``update(bytes)``.

        Raises:
            ConfigurationError: the disk is full; a tensor cannot be read or is not as planned.
        """
        with self._full_disk():
            self._check_room()
            for shard in self._shards:
                self._write(shard, progress)
            self._write_index()
            for name, file in self._plan.files.items():
                target = self._folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)

    def finish(self, manifest: Manifest) -> None:
        """Write reward.json and config.json, by which the folder becomes a checkpoint."""
        with self._full_disk():
            part = self._folder / f"{manifests.FILE_NAME}{PART}"
            manifests.write(part, manifest)
            part.replace(self._folder / manifests.FILE_NAME)
            _write_json(self._folder / "config.json", dict(self._plan.config))
            (self._folder / STATE).unlink()

    def _open(self, identity: str) -> None:
        try:
            self._take(identity)
        except OSError as error:
            raise ConfigurationError(f"--output {self._folder}: {error.strerror}") from error

    def _take(self, identity: str) -> None:
        folder = self._folder
        state = folder / STATE
        if state.is_file():
            if _identity_in(state) != identity:
                raise ConfigurationError(
                    f"--output {folder}: an unfinished import of another source, or with other"
                    " options, lies there: remove it, or choose another folder"
                )
            return
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigurationError(
                f"--output {folder}: it is not empty, and no unfinished import: choose a new folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(state, {"identity": identity})

    def _is_whole(self, shard: Shard) -> bool:
        file = self._folder / shard.name
        if shard.link is not None:
            return file.exists() and file.samefile(shard.link)
        return file.is_file() and file.stat().st_size == shard.bytes

    def _check_room(self) -> None:
        left = [shard for shard in self._shards if shard.link is None and not self._is_whole(shard)]
        wanted = sum(shard.bytes for shard in left) + SPARE_BYTES
        for part in self._folder.glob(f"*{PART}"):
            part.unlink()
        free = shutil.disk_usage(self._folder).free
        if free < wanted:
            raise ConfigurationError(
                f"--output {self._folder}: {wanted:,} bytes are to be written, and {free:,} are"
                " free: free some, or choose a folder on another disk"
            )

    def _write(self, shard: Shard, progress: Any) -> None:
        file = self._folder / shard.name
        if self._is_whole(shard):
            progress.update(0 if shard.link else shard.bytes)
            return
        part = file.with_name(file.name + PART)
        if shard.link is not None:
            _link(shard.link.resolve(), part)
        else:
            with part.open("wb") as stream:
                progress.update(stream.write(shard.header))
                for tensor in shard.tensors:
                    for chunk in _chunks(tensor):
                        progress.update(stream.write(chunk))
                stream.flush()
                os.fsync(stream.fileno())
        part.replace(file)

    def _write_index(self) -> None:
        if len(self._shards) == 1:
            return
        places = {tensor.name: shard.name for shard in self._shards for tensor in shard.tensors}
        total = sum(size(tensor) for shard in self._shards for tensor in shard.tensors)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        _write_json(self._folder / tensors.INDICES[0], index)

    @contextlib.contextmanager
    def _full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise ConfigurationError(f"--output {self._folder}: {error}") from error
            raise ConfigurationError(
                f"--output {self._folder}: the disk is full ({error.strerror}): free some room and"
                " start the same command again; what is written is kept"
            ) from error


def shards(planned: Sequence[PlannedTensor], link: bool = False) -> list[Shard]:
    """The files for these tensors: linked ones first, then those that are written, in order."""
    linked = _linkable(planned) if link else {}
    rest = [tensor for tensor in planned if not linked.keys() & set(tensor.files)]
    groups: list[tuple[list[PlannedTensor], Path | None]] = [
        (found, file) for file, found in linked.items()
    ]
    room = 0
    for tensor in rest:
        if size(tensor) > room or not groups or groups[-1][1] is not None:
            groups.append(([], None))
            room = MOST_SHARD_BYTES
        groups[-1][0].append(tensor)
        room -= size(tensor)
    count = len(groups)
    return [
        Shard(_shard_name(number, count), found, file)
        for number, (found, file) in enumerate(groups, 1)
    ]


def size(tensor: PlannedTensor) -> int:
    """Bytes of a tensor.

    Raises:
        ConfigurationError: its dtype has no name in safetensors.
    """
    if tensor.dtype not in BYTES:
        raise ConfigurationError(
            f"tensor {tensor.name}: its dtype {tensor.dtype} cannot be written: give another export"
        )
    return math.prod(tensor.shape) * BYTES[tensor.dtype]


def digest(
    source: Path, patterns: Sequence[str], done: Callable[[float], Any] = lambda share: None
) -> str:
    """The sha256 of a file, or of the names and sums of a folder's files that match.

    Args:
        done: called with the share of all bytes that was read since the last call.
    """
    if source.is_file():
        return _sum(source, done, source.stat().st_size)
    found = {
        str(file.relative_to(source)): file
        for pattern in patterns
        for file in source.glob(pattern)
        if file.is_file()
    }
    total = sum(file.stat().st_size for file in found.values())
    lines = [f"{name}\0{_sum(file, done, total)}\n" for name, file in sorted(found.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sum(file: Path, done: Callable[[float], Any], total: int) -> str:
    blob = file.resolve().name  # a file of the hub's cache is named by its sha256
    if file.is_symlink() and len(blob) == 64 and set(blob) <= set("0123456789abcdef"):
        done(file.stat().st_size / total)
        return blob
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            found.update(chunk)
            done(len(chunk) / total)
    return found.hexdigest()


def _linkable(planned: Sequence[PlannedTensor]) -> dict[Path, list[PlannedTensor]]:
    """The source's files all of whose tensors are planned as they are, with these tensors."""
    found: dict[Path, list[PlannedTensor]] = {}
    for tensor in planned:
        for file in tensor.files:
            found.setdefault(file, []).append(tensor)
    return {file: kept for file, kept in found.items() if len(kept) == _count(file)}


def _count(file: Path) -> int:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return len(opened.keys())


def _shard_name(number: int, count: int) -> str:
    if count == 1:
        return "model.safetensors"
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def _chunks(planned: PlannedTensor) -> Iterator[memoryview]:
    """The bytes of a tensor, which is dropped after the last.

    Raises:
        ConfigurationError: it cannot be read, or is not as it was planned.
    """
    import torch

    try:
        tensor = planned.read()
    except ConfigurationError:
        raise
    except Exception as error:  # the libraries raise many types for a damaged file
        raise ConfigurationError(
            f"tensor {planned.name} cannot be read: {first_line(error)}: fetch the source again"
        ) from error
    found = (tuple(tensor.shape), tensors.dtype_name(tensor.dtype))
    if found != (planned.shape, planned.dtype):
        raise ConfigurationError(
            f"tensor {planned.name} is {found[1]} {list(found[0])}, and {planned.dtype}"
            f" {list(planned.shape)} was planned: the source has changed; start again"
        )
    flat = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    for start in range(0, len(flat), CHUNK):
        yield memoryview(flat[start : start + CHUNK])


def _check_apart(folder: Path, source: Path) -> None:
    here, there = folder.resolve(), source.resolve()
    if here == there or (there in here.parents and (there / "config.json").is_file()):
        raise ConfigurationError(
            f"--output {folder}: it is the source, or lies in it: choose another folder"
        )


def _identity(plan: Plan, source: Path, link: bool) -> str:
    """The sha256 of all that decides what is written, but the day."""
    files = {file for tensor in plan.tensors for file in tensor.files} | {*plan.files.values()}
    if source.is_file():
        files.add(source)
    elif source.is_dir():
        files |= {file for file in source.iterdir() if file.is_file()}
    manifest = plan.manifest.model_dump(mode="json", by_alias=True)
    manifest["prompt"].pop("date", None)
    decides = {
        "source": str(source.resolve()),
        "kind": plan.kind,
        "link": link,
        "config": dict(plan.config),
        "manifest": manifest,
        "tensors": [(one.name, one.shape, one.dtype) for one in plan.tensors],
        "files": sorted((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _identity_in(state: Path) -> object:
    """The identity of an unfinished import; None where the file is damaged."""
    try:
        content = json.loads(state.read_bytes())
    except ValueError:
        return None
    return content.get("identity") if isinstance(content, dict) else None


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        target.symlink_to(source)


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    part = file.with_name(file.name + PART)
    part.write_text(json.dumps(content, indent=2) + "\n")
    part.replace(file)
