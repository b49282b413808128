"""Where scored rows go: a file or a folder that appears when it is whole, or a stream."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fivescore.data.formats import FORMATS, STDIN, need_pyarrow, read_metadata, suffix_of
from fivescore.data.inputs import SIDE_FILE, Input
from fivescore.data.writer import Columns, Writer, written
from fivescore.errors import ConfigurationError
from fivescore.labelling.answers import Answers, NoAnswers
from fivescore.labelling.run import KEY, difference

DEFAULT_FORMAT = ".jsonl"
"""The format of a name that says none."""
RESUME, PARTIAL = ".resume", ".partial"
"""What stands behind the output's name while a run is not done: its scores, and its new output."""
FOLDER_RECORD = "_run.json"
"""The record of a folder, in it. Readers of data sets pass over names with an underscore."""
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_STANDARD = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}


@dataclass(frozen=True)
class Part:
    """The rows of one input file: what a writer must know before the first of them."""

    file: Path
    columns: Columns
    sample: Sequence[Mapping[str, Any]]


class Stream:
    """Standard output, a pipe or a device: rows are written as they come, and nothing resumes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.suffix = suffix_of(Path(name).name) or DEFAULT_FORMAT
        self._stack = ExitStack()
        self._writer: Writer | None = None
        match = _DESCRIPTOR.fullmatch(name)
        self.descriptor = int(match[1]) if match else _STANDARD.get(name)
        """The open descriptor that it names; None for a path that is to be opened."""

    resume: Path | None = None

    def answers(self, about: Mapping[str, Any]) -> NoAnswers:
        return NoAnswers()

    def record(self, about: Mapping[str, Any], answers: Answers | NoAnswers) -> None:
        return None

    def begin(self, part: Part, about: Mapping[str, Any]) -> None:
        """The rows that follow are those of ``part``."""
        if self._writer is None:
            # A duplicate, so that an error of the last bytes is raised here and not at the exit.
            opened = os.dup(self.descriptor) if self.descriptor is not None else self.name
            self._file = self._stack.enter_context(open(opened, "wb"))  # noqa: SIM115
            self._writer = self._stack.enter_context(
                written(self._file, self.suffix, self.name, part.columns, part.sample)
            )

    def write(self, row: Mapping[str, Any]) -> None:
        assert self._writer is not None
        self._writer.write(row)
        self._file.flush()  # whoever reads it need not wait for the next row

    def end(self, record: Mapping[str, Any], answers: Answers | NoAnswers) -> None:
        assert self._writer is not None
        self._writer.close({KEY: json.dumps(record)})
        self.close()

    def close(self) -> None:
        """Close what is open; the output need not be whole."""
        self._stack.close()


class Files:
    """A file, or a folder with one file for each of the input's.

    What is written stands under other names until all of it is there. Nothing that another program
    has made, or has changed, is replaced.
    """

    def __init__(self, path: Path, source: Input, is_folder: bool) -> None:
        self.name = str(path)
        self.path = Path(os.path.realpath(path))  # a link stays a link
        self.suffix = suffix_of(path.name) or DEFAULT_FORMAT
        self._source, self._is_folder = source, is_folder
        self.resume = self._beside(RESUME)
        """The file that keeps the scores until all rows have one."""
        self._partial = self._beside(PARTIAL)
        self._open = ExitStack()
        self._writer: Writer | None = None
        self._parts: list[str] = []

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(self.path.name + ending)

    @property
    def _side(self) -> Path | None:
        """The file of the record; None where the output holds it."""
        if self._is_folder:
            return self.path / FOLDER_RECORD
        return None if self.suffix == ".parquet" else self._beside(SIDE_FILE)

    def answers(self, about: Mapping[str, Any]) -> Answers:
        """The scores of earlier runs; locks the output for this one.

        Raises:
            ConfigurationError: they are of another run, or another process is at work.
        """
        if not self.path.parent.is_dir():
            raise ConfigurationError(f"{self.name}: there is no folder {self.path.parent}")
        again = f"choose another -o, or remove {self.resume} to start over"
        return Answers(self.resume, about, again)

    def record(
        self, about: Mapping[str, Any], answers: Answers | NoAnswers
    ) -> dict[str, Any] | None:
        """The record of the run that has made the output, if that is whole; None without output.

        Raises:
            ConfigurationError: what is there is not the output of such a run.
        """
        if isinstance(answers, Answers) and answers.is_new and self._partial.exists():
            raise self._foreign(self._partial)
        side = self._side
        if side is not None and side.exists() and self._recorded() is None:
            raise self._foreign(side)
        found = self._found()
        ours = answers.published
        if not found or (
            ours and all(_digest(file) in ours.get(self._name_of(file), ()) for file in found)
        ):
            return None
        record = self._recorded()
        if record is None or answers.published or not self._is_unchanged(found, record):
            raise self._foreign(self.path)
        if differs := difference(record, about):
            raise ConfigurationError(
                f"{self.name} is the output of another run: {differs}; choose another -o, or remove"
                f" {self.name} to start over"
            )
        return record

    def _foreign(self, path: Path) -> ConfigurationError:
        return ConfigurationError(
            f"{path} is there and is not, or no longer, what fivescore score wrote: choose another"
            f" -o, or move it away"
        )

    def _found(self) -> list[Path]:
        if not self._is_folder:
            return [self.path] if self.path.exists() else []
        files = (file for file in self.path.rglob("*") if not file.is_dir())
        return [file for file in files if file != self._side]

    def _is_unchanged(self, found: Sequence[Path], record: Mapping[str, Any]) -> bool:
        """Whether the files are those of the record; one inside a file cannot have its digest."""
        digests = record.get("output")
        return self._side is None or digests == {self._name_of(one): _digest(one) for one in found}

    def _name_of(self, file: Path) -> str:
        return file.relative_to(self.path).as_posix() if self._is_folder else file.name

    def _recorded(self) -> dict[str, Any] | None:
        side = self._side
        try:
            if side is None:
                text = read_metadata(self.path).get(KEY, "")
                record = json.loads(text)
            else:
                record = json.loads(side.read_bytes())[KEY]
        except (OSError, ValueError, LookupError, TypeError, ConfigurationError):
            return None
        return record if isinstance(record, dict) and "rows" in record else None

    def begin(self, part: Part, about: Mapping[str, Any]) -> None:
        """The rows that follow are those of ``part``.

        Raises:
            OSError: the output cannot be written.
        """
        if self._writer is not None and not self._is_folder:
            return
        self._end_part(about)
        relative = self._relative(part.file) if self._is_folder else self.path.name
        path = self._partial / relative if self._is_folder else self._partial
        path.parent.mkdir(parents=True, exist_ok=True)
        self._parts.append(relative)
        self._file = self._open.enter_context(path.open("wb"))
        suffix = (suffix_of(relative) or DEFAULT_FORMAT) if self._is_folder else self.suffix
        name = str(self.path / relative) if self._is_folder else self.name
        self._writer = self._open.enter_context(
            written(self._file, suffix, name, part.columns, part.sample)
        )

    def _relative(self, file: Path) -> str:
        if file == STDIN:
            return "stdin" + DEFAULT_FORMAT
        base = self._source.path if self._source.is_folder else file.parent
        return file.relative_to(base).as_posix()

    def write(self, row: Mapping[str, Any]) -> None:
        assert self._writer is not None
        self._writer.write(row)

    def end(self, record: Mapping[str, Any], answers: Answers | NoAnswers) -> None:
        """Put the output in place.

        Raises:
            OSError: it cannot be written.
        """
        self._end_part(record)
        partials = {
            part: self._partial / part if self._is_folder else self._partial for part in self._parts
        }
        digests = {part: _digest(partial) for part, partial in partials.items()}
        answers.publish(digests)
        for part, partial in partials.items():
            final = self.path / part if self._is_folder else self.path
            final.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(final)
        if self._side is not None:
            _write_whole(self._side, {KEY: {**record, "output": digests}})
        self._remove_partial()

    def _end_part(self, about: Mapping[str, Any]) -> None:
        if self._writer is not None:
            self._writer.close({KEY: json.dumps(about)})
            self._writer = None
            self._open.close()

    def close(self) -> None:
        """Close what is open, and remove an output that is not whole: its scores are kept."""
        if self._parts:
            with contextlib.suppress(OSError):
                self._open.close()
            self._remove_partial()

    def _remove_partial(self) -> None:
        self._parts = []
        if self._is_folder:
            shutil.rmtree(self._partial)
        else:
            self._partial.unlink(missing_ok=True)


def output_for(name: str, source: Input) -> Stream | Files:
    """The output that a user names.

    Raises:
        ConfigurationError: the name has no known format, or names the input.
    """
    path = Path(name)
    if name in _STANDARD or _DESCRIPTOR.fullmatch(name) or _is_device(path):
        output: Stream | Files = Stream(name)
    else:
        is_folder = path.is_dir() or name.endswith("/") or (source.is_folder and not path.suffix)
        if not is_folder and path.suffix and suffix_of(path.name) is None:
            raise ConfigurationError(
                f"{name}: the name must end in one of {', '.join(FORMATS)}, each also with .gz"
            )
        output = Files(path, source, is_folder)
    if output.suffix.startswith(".parquet"):
        need_pyarrow(name)
    _refuse_the_input(output, source)
    return output


def _is_device(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _refuse_the_input(output: Stream | Files, source: Input) -> None:
    if isinstance(output, Stream):
        target: int | Path = output.descriptor if output.descriptor is not None else Path()
        is_same = isinstance(target, int) and _is_input(os.fstat(target), source)
    else:
        inside = output.path.is_relative_to(os.path.realpath(source.path))
        is_same = (source.is_folder and inside) or _holds_input(output.path, source)
    if is_same:
        raise ConfigurationError(
            f"{output.name} is the input, or is in its folder: choose another -o"
        )


def _holds_input(path: Path, source: Input) -> bool:
    with contextlib.suppress(OSError):
        if path.is_dir():
            return any(Path(os.path.realpath(file)).is_relative_to(path) for file in source.files)
        return _is_input(path.stat(), source)
    return False


def _is_input(status: os.stat_result, source: Input) -> bool:
    return stat.S_ISREG(status.st_mode) and any(
        os.path.samestat(status, file.stat()) for file in source.files if file.exists()
    )


def _digest(path: Path) -> str:
    """The digest of a file, which is on the disk then whatever happens to the machine."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_whole(path: Path, record: Mapping[str, Any]) -> None:
    partial = path.with_name(path.name + PARTIAL)
    partial.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    partial.replace(path)
