"""The scores of a run that has not ended, in an SQLite file beside its output.

A killed run leaves the file behind, and the next one reuses its scores. SQLite keeps it whole
whenever a process is killed, and locks it while one uses it.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from fivescore.errors import ConfigurationError
from fivescore.labelling.run import difference

APPLICATION = 0x5C0BE5
"""The application id in the header of the file, by which it is recognised as ours."""
_TABLES = """
    CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS scores (row INTEGER PRIMARY KEY, key BLOB NOT NULL,
                                       score TEXT NOT NULL);
"""

Numbered = tuple[int, bytes, dict[str, Any]]
"""A row's number, its key (the digest of its content), and its score."""


class Answers:
    """Scores by the numbers of their rows; locked for this process until ``close``.

    Args:
        path: the file, which is made if it is not there.
        about: the description of this run.
        again: what to do to start over, for errors.

    Raises:
        ConfigurationError: the file is not ours, another process uses it, or it holds the scores of
            another run.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], again: str) -> None:
        self.path = path
        self._finished = False
        with self._one_error():
            self._db = sqlite3.connect(path, timeout=0.0, isolation_level=None)
        try:
            with self._one_error():
                self._lock()
                before = self._fact("run")
            self.is_new = before is None
            if before is not None and (differs := difference(before, about)):
                raise ConfigurationError(
                    f"{path} holds the scores of another run: {differs}; {again}"
                )
            if before is None:
                with self._one_error():
                    self._keep("run", about)
        except BaseException:
            self._db.close()
            raise

    def _lock(self) -> None:
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")  # whole after a crash, without waiting for
        self._db.execute("PRAGMA synchronous = NORMAL")  # the disk at each commit
        self._db.execute("BEGIN EXCLUSIVE")  # is held until the file is closed
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != APPLICATION:
            raise ConfigurationError(f"{self.path} was not made by fivescore score: move it away")
        if not tables:
            self._db.execute(f"PRAGMA application_id = {APPLICATION}")
            for statement in filter(str.strip, _TABLES.split(";")):
                self._db.execute(statement)
        self._db.execute("COMMIT")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._finished or not (len(self) or self.published):
            for name in (f"{self.path}-wal", self.path):  # before others can lock it
                Path(name).unlink(missing_ok=True)
        self._db.close()

    def __len__(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM scores").fetchone()
        return int(count)

    def score(self, row: int) -> tuple[bytes, dict[str, Any]] | None:
        """The key and the score of a row that is scored."""
        found = self._db.execute("SELECT key, score FROM scores WHERE row = ?", [row]).fetchone()
        return None if found is None else (found[0], json.loads(found[1]))

    def last(self) -> int:
        """The highest number of a row that is scored; 0 without any."""
        (number,) = self._db.execute("SELECT max(row) FROM scores").fetchone()
        return number or 0

    def add(self, scores: Iterable[Numbered]) -> None:
        """Keep scores, all or none of them.

        Raises:
            ConfigurationError: they cannot be written.
        """
        with self._one_error():
            self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT OR REPLACE INTO scores VALUES (?, ?, ?)",
                ((row, key, json.dumps(score)) for row, key, score in scores),
            )
            self._db.execute("COMMIT")

    @property
    def published(self) -> dict[str, list[str]]:
        """The digests of the output's files that this run has put in place, by their names."""
        return dict(self._fact("published") or {})

    def publish(self, digests: Mapping[str, str]) -> None:
        """Keep the digests of files that are about to be put in place."""
        both = {name: [*self.published.get(name, ()), digest] for name, digest in digests.items()}
        with self._one_error():
            self._keep("published", {**self.published, **both})

    def describe(self, about: Mapping[str, Any]) -> None:
        """Keep a description that knows more than that of the start."""
        with self._one_error():
            self._keep("run", about)

    def refuse(self) -> None:
        """The scores are of several models: no later run continues this one."""
        with self._one_error():
            self._keep(
                "run", {**(self._fact("run") or {}), "digest": "several", "model": "several"}
            )

    def finish(self) -> None:
        """Nothing is left to do: the file is removed when it is closed."""
        self._finished = True

    def _fact(self, name: str) -> Any:
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", [name]).fetchone()
        return None if row is None else json.loads(row[0])

    def _keep(self, name: str, value: Any) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", [name, json.dumps(value)])

    @contextlib.contextmanager
    def _one_error(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            reason = str(error)
            if "locked" in reason:
                reason = "another fivescore score is writing this output: wait until it has ended"
            elif "unable to open" in reason:
                reason = "it cannot be written"
            elif "not a database" in reason or "malformed" in reason:
                reason = "it is not, or no longer, a file of fivescore score: move it away"
            raise ConfigurationError(f"{self.path}: {reason}") from error


class NoAnswers:
    """The same for an output that cannot be continued, such as standard output."""

    path = None
    published: Mapping[str, list[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def __len__(self) -> int:
        return 0

    def score(self, row: int) -> None:
        return None

    def last(self) -> int:
        return 0

    def add(self, scores: Iterable[Numbered]) -> None:
        pass

    def publish(self, digests: Mapping[str, str]) -> None:
        pass

    def describe(self, about: Mapping[str, Any]) -> None:
        pass

    def refuse(self) -> None:
        pass

    def finish(self) -> None:
        pass
