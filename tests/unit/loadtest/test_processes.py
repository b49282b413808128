"""What a benchmark does with the processes it starts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from loadtest.processes import settled

BURN = """
import pathlib, sys, time
print(flush=True)
burnt = 0.0
while burnt < 0.8:
    burnt = time.process_time()
pathlib.Path(sys.argv[1]).touch()
time.sleep(600)
"""


def test_it_waits_until_what_was_started_computes_nothing(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    command = [sys.executable, "-c", BURN, str(ended)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        asyncio.run(settled())
        assert ended.exists()
    finally:
        process.kill()
        process.communicate()
