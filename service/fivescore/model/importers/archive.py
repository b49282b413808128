"""The files of a source, in a folder or in a tar archive, which is read where it lies."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from fivescore.model.architecture import refusal

COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes of compressed files, which cannot be read from the middle."""


@dataclass(frozen=True, slots=True)
class Member:
    """Where a file's bytes are: ``size`` bytes from ``offset`` of the file ``path``."""

    path: Path
    offset: int
    size: int

    def open(self, start: int = 0, length: int | None = None) -> BinaryIO:
        """A seekable stream of ``length`` bytes from ``start``, or of all that follow it."""
        length = self.size - start if length is None else length
        window = _Window(self.path.open("rb", buffering=0), self.offset + start, length)
        return io.BufferedReader(window)

    def read(self, most: int) -> bytes:
        """The whole content, of at most ``most`` bytes; one byte more where it is larger."""
        with self.open() as stream:
            return stream.read(most + 1)


class _Window(io.RawIOBase):
    """A part of a file as a stream of its own."""

    def __init__(self, file: io.FileIO, start: int, length: int) -> None:
        self._file, self._start, self._length, self._place = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._length}[whence]
        self._place = max(base + offset, 0)
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        room = max(min(len(buffer), self._length - self._place), 0)
        self._file.seek(self._start + self._place)
        count = self._file.readinto(memoryview(buffer)[:room]) or 0
        self._place += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class Files(Mapping[str, Member]):
    """Files by their names with ``/``, relative to the source.

    Args:
        shown: the source's name in errors.
    """

    def __init__(self, shown: str, members: Mapping[str, Member]) -> None:
        self.shown = shown
        self._members = members

    def __getitem__(self, name: str) -> Member:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def below(self, folder: str) -> Files:
        """The files of a folder, by their names in it."""
        start = f"{folder}/" if folder else ""
        return Files(
            self.shown,
            {name[len(start) :]: each for name, each in self.items() if name.startswith(start)},
        )

    def read(self, name: str, most: int) -> bytes:
        """The content of a small file.

        Raises:
            ConfigurationError: it is missing, or has more than ``most`` bytes.
        """
        if name not in self:
            raise refusal(self.shown, f"{name} is missing: fetch it again")
        content = self[name].read(most)
        if len(content) > most:
            raise refusal(self.shown, f"{name} has more than the {most} bytes that it may have")
        return content


def open_files(source: Path) -> Files:
    """The files of a folder, or of an uncompressed tar archive such as ``.nemo``.

    Raises:
        ConfigurationError: there is no such source; or the archive is compressed, cut short, or
            has a member that is no plain file or lies outside of it.
    """
    if source.is_dir():
        return Files(str(source), _of_folder(source))
    try:
        with source.open("rb") as file:
            start = file.read(6)
        for magic, name in COMPRESSED.items():
            if start.startswith(magic):
                raise refusal(
                    str(source),
                    f"a {name} archive, which cannot be read in place: unpack it (tar -xf) and"
                    " give the folder",
                )
        return Files(str(source), _of_archive(source))
    except tarfile.TarError as error:
        raise refusal(str(source), f"not a whole tar archive ({error}): fetch it again") from error
    except OSError as error:
        raise refusal(str(source), f"cannot be read: {error.strerror}") from error


def _of_folder(source: Path) -> dict[str, Member]:
    found = {}
    for folder, _, names in os.walk(source):
        for name in names:
            path = Path(folder, name)
            if path.is_file():
                found[path.relative_to(source).as_posix()] = Member(path, 0, path.stat().st_size)
    return found


def _of_archive(source: Path) -> dict[str, Member]:
    found: dict[str, Member] = {}
    size = source.stat().st_size
    with tarfile.open(source, "r:") as archive:
        for entry in archive:
            if entry.isdir():
                continue
            name = PurePosixPath(entry.name)
            if name.is_absolute() or ".." in name.parts:
                raise refusal(str(source), f"its member {entry.name!r:.60} lies outside of it")
            if not entry.isreg() or entry.sparse is not None:
                raise refusal(
                    str(source), f"its member {entry.name!r:.60} is a link or no plain file"
                )
            if entry.offset_data + entry.size > size:
                raise refusal(
                    str(source),
                    f"cut short: {name.name} ends at byte {entry.offset_data + entry.size}, and"
                    f" the archive has {size}; fetch it again",
                )
            found[str(name)] = Member(source, entry.offset_data, entry.size)
    return found
