"""Which model is served: the files that decide its scores, their digest, and their changes."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from fivescore.errors import ModelChanged
from fivescore.model.engine_options import merged
from fivescore.model.manifest import FILE_NAME, PRESETS
from fivescore.settings import Settings

DECIDING = (
    "*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.index.json",
    "config.json", "params.json", "*quant*config*.json", "modules.json", "*.py",
    "*token*.json", "*vocab*", "merges.txt", "*.model", "*.tiktoken", "tekken.json",
    "*processor_config.json", "*chat_template*", "*.jinja", FILE_NAME,
)  # fmt: skip
"""Names of files that decide scores: weights, code, configuration, tokenizer and manifest."""
LEFT_OVER = (
    "optimizer*",
    "scheduler*",
    "rng_state*",
    "training_args*",
    "trainer_state*",
    "adapter_*",
)
"""Names of files that trainers leave beside weights, and that nothing loads."""
ELSEWHERE = ("model_weights", "hf_config_path", "tokenizer")
"""Engine options that name a folder with some of a model's files."""
PLACES = ("*", "additional_chat_templates/*", "[0-9]_*/*")
"""Where they lie: templates by name have a folder, and modules of sentence-transformers."""
THREADS = 4
"""The most files that are read at once."""
CHUNK = 2**22
"""Bytes that are read at once; between two the reading can be stopped."""


@dataclass(frozen=True, slots=True)
class _Stat:
    """What the file system says of a file; when it is the same the file has not been written."""

    size: int
    modified: int
    changed: int
    inode: int
    device: int


@dataclass(frozen=True, slots=True)
class _Found:
    path: Path
    stat: _Stat


class Identity:
    """The files of a model as they were first seen, which is when this is made.

    What is read is remembered: a later look reads only files that were written since. The methods
    block, for a large model for minutes, and may be called on any thread.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sums: dict[str, str] = {}
        self._stopped = threading.Event()
        self._loaded = False
        self._first = self._find()

    def look(self, loaded: bool = False) -> None:
        """Compare the files with those that were first seen.

        Args:
            loaded: an engine has loaded them. A model of the hub may be downloaded until then.

        Raises:
            ModelChanged: they differ; names one.
        """
        now = self._find()
        if not self._loaded and not Path(self._settings.model).is_dir():
            self._first = {**now, **self._first}
        for name in sorted(now.keys() | self._first.keys()):
            if name not in now:
                raise self._changed(name, "was removed")
            if name not in self._first:
                raise self._changed(name, "was added")
            if not self._same(name, now[name]):
                raise self._changed(name, "was changed")
        self._loaded = self._loaded or loaded

    def digest(self) -> str | None:
        """The sha256, 64 hexadecimal digits, of the names and contents of the files.

        It is the same wherever the model lies. None if a file was written after it was first
        seen, cannot be read, or ``stop`` was called.
        """
        files = dict(self._first)
        with ThreadPoolExecutor(THREADS, "digest", _yield_the_cores) as pool:
            sums = list(pool.map(self._sum_of, files, files.values()))
        if not files or None in sums:
            return None
        lines = [f"{name}\0{found}\n" for name, found in sorted(zip(files, sums, strict=True))]
        if self._settings.manifest in PRESETS:
            lines.append(f"preset {self._settings.manifest}\n")
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def stop(self) -> None:
        """End all reading soon; what is being read stays unknown."""
        self._stopped.set()

    def _changed(self, name: str, how: str) -> ModelChanged:
        since = "was loaded" if self._loaded else "began to load"
        return ModelChanged(
            f"model {self._settings.model}: {name} {how} since the model {since}, so no"
            " engine loads it: start the service again to serve what is there now"
        )

    def _same(self, name: str, now: _Found) -> bool:
        first = self._first[name]
        if now.stat == first.stat:
            return True
        known = self._sums.get(name)
        if known is None or _sha256(now, self._stopped) != known:
            return False
        self._first[name] = now
        return True

    def _sum_of(self, name: str, found: _Found) -> str | None:
        if name not in self._sums:
            read = _sha256(found, self._stopped)
            if read is None:
                return None
            self._sums[name] = read
        return self._sums[name]

    def _find(self) -> dict[str, _Found]:
        """The files by their names in the model's folder."""
        found = {}
        for folder in self._folders():
            for path in itertools.chain.from_iterable(map(folder.glob, PLACES)):
                if _decides(path.name) and (one := _stat(path)):
                    found[path.relative_to(folder).as_posix()] = one
        found |= self._elsewhere()
        if (manifest := self._settings.manifest) is not None:
            found.pop(FILE_NAME, None)
            if manifest not in PRESETS and (one := _stat(Path(manifest))):
                found[FILE_NAME] = one
        return found

    def _elsewhere(self) -> dict[str, _Found]:
        """The files of the folders that engine options name, by option and name."""
        options = merged(self._settings.engine)
        given = {name: Path(str(options[name])) for name in ELSEWHERE if name in options}
        paths = {
            f"{name}/{path.name}": path
            for name, folder in given.items()
            for path in folder.glob("*")
        }
        return {
            name: one
            for name, path in paths.items()
            if _decides(path.name) and (one := _stat(path)) is not None
        }

    def _folders(self) -> Iterator[Path]:
        """The model's folder, or what the hub's cache and a cache of vLLM's own have of it."""
        settings = self._settings
        if Path(settings.model).is_dir():
            yield Path(settings.model)
            return
        from huggingface_hub import try_to_load_from_cache

        for cache in (None, merged(settings.engine).get("download_dir")):
            with contextlib.suppress(ValueError):  # not a hub id
                path = try_to_load_from_cache(
                    settings.model, "config.json", cache_dir=cache, revision=settings.revision
                )
                if isinstance(path, str):
                    yield Path(path).parent


def _decides(name: str) -> bool:
    plain = any(fnmatch(name, pattern) for pattern in DECIDING)
    return plain and not any(fnmatch(name, pattern) for pattern in LEFT_OVER)


def _stat(path: Path) -> _Found | None:
    """The file at ``path``, links followed; None where there is none."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return _Found(path, _of(seen)) if stat.S_ISREG(seen.st_mode) else None


def _of(seen: os.stat_result) -> _Stat:
    return _Stat(seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino, seen.st_dev)


def _yield_the_cores() -> None:
    """Let this thread run only where a core is free: the model loads at the same time."""
    with contextlib.suppress(OSError, AttributeError):  # other systems than Linux
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def _sha256(found: _Found, stopped: threading.Event) -> str | None:
    """The sha256 of a file; None if it is not, or does not stay, the one that was found."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK))
    try:
        with found.path.open("rb", buffering=0) as file:
            while size := file.readinto(buffer):
                if stopped.is_set():
                    return None
                digest.update(buffer[:size])
            seen = os.fstat(file.fileno())
    except OSError:
        return None
    return digest.hexdigest() if _of(seen) == found.stat else None
