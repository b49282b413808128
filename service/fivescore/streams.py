"""Standard input, output and error of a command, whatever of them it was given."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

NAMES = ("stdin", "stdout", "stderr")


class _Given:
    """What this process began with."""

    errors = True


def open_missing() -> None:
    """Open ``/dev/null`` for each of the three that is closed.

    Otherwise the next file or socket gets its number, and what a library writes to "standard error"
    is written into it.
    """
    for number, name in enumerate(NAMES):
        try:
            os.fstat(number)
        except OSError:  # the lowest number that is free is the one that is opened
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
            _Given.errors &= name != "stderr"


def for_errors() -> TextIO:
    """Where people read errors: standard error, or standard output where that was closed."""
    return sys.stderr if _Given.errors else sys.stdout


def say(line: str) -> None:
    """Print an error; on standard output too where standard error has no room."""
    for stream in (for_errors(), sys.stdout):
        with contextlib.suppress(OSError):
            print(line, file=stream, flush=True)
            return
        settle(stream)


def settle(stream: TextIO) -> None:
    """Let what cannot be written go nowhere: at the exit it would fail once more."""
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
