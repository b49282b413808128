"""The input of a command: one file, all files of a folder, or standard input."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from fivescore.data.formats import FORMATS, STDIN, count_rows, name_of, suffix_of
from fivescore.errors import ConfigurationError

SIDE_FILE = ".run.json"
"""The ending of files that describe an output beside them, and hold no rows."""


@dataclass(frozen=True)
class Input:
    """The files of an input, in the order of their paths."""

    path: Path
    files: tuple[Path, ...]
    is_folder: bool = False
    is_stream: bool = False
    """Whether it can be read only once, as a pipe can."""

    @property
    def name(self) -> str:
        return name_of(self.path)

    def count(self, default: str) -> int | None:
        """The number of rows, bad ones included; None of a stream.

        Args:
            default: the format of a file whose name says none.

        Raises:
            ConfigurationError: a file cannot be read.
        """
        return None if self.is_stream else sum(count_rows(file, default) for file in self.files)


def find(path: Path) -> Input:
    """The input at ``path``; ``-`` is standard input.

    A folder's files are those with the ending of a format, in it and in folders below. Names that
    start with a dot or an underscore, as other programs' notes do, are left out.

    Raises:
        ConfigurationError: there is nothing, or a folder without files, or of several formats.
    """
    if path == STDIN:
        return Input(path, (path,), is_stream=True)
    if path.is_dir():
        return Input(path, tuple(_files_of(path)), is_folder=True)
    try:
        is_regular = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        raise ConfigurationError(f"{path}: it cannot be read: {error.strerror}") from error
    return Input(path, (path,), is_stream=not is_regular)


def _files_of(folder: Path) -> list[Path]:
    files = sorted(
        file
        for file in folder.rglob("*")
        if suffix_of(file.name)
        and not file.name.endswith(SIDE_FILE)
        and not any(part[0] in "._" for part in file.relative_to(folder).parts)
        and file.is_file()
    )
    if not files:
        raise ConfigurationError(f"{folder}: the folder has no files that end in {_or(FORMATS)}")
    formats = sorted({str(suffix_of(file.name)) for file in files})
    if len(formats) > 1:
        raise ConfigurationError(
            f"{folder}: the folder has files of several formats, {_or(formats)}, which may be the"
            " same rows twice: give one file, or a folder of one format"
        )
    return files


def _or(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:-1]) + " or " + names[-1]
