"""A process that has served ends after its exit functions, without what Python does then."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, signal, sys, threading, time
from fivescore import leaving

class Object:
    def __del__(self):
        print("taken apart")

leaving.skip_finalization()
atexit.register(print, "a farewell")
served, busy = map(int, sys.argv[1:])
if served:
    leaving.Unwaited()
if busy:
    threading.Thread(target=time.sleep, args=(60,)).start()
kept = Object()
sys.exit(leaving.leave(3))
"""


@pytest.mark.parametrize(
    ("served", "busy", "said"),
    [
        (True, False, "a farewell\n"),
        (True, True, ""),
        (False, False, "a farewell\ntaken apart\n"),
    ],
)
def test_a_process_that_has_served_is_not_taken_apart(served: bool, busy: bool, said: str) -> None:
    words = [sys.executable, "-c", PROGRAM, str(int(served)), str(int(busy))]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (3, said), ended.stderr
