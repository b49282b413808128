"""A trainer's process, and what is known of the trainer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.trainers import environments
from tests.trainers.samples import Sample

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
STOP_SECONDS = 30


class RunEnded(Exception):
    """The trainer's own code raised, which ends its run."""


@dataclass(frozen=True)
class Trainer:
    """A trainer that is run with its own code."""

    key: str
    """The name of its driver and its result."""
    name: str
    """What people call it."""
    called: str
    """What of its own code asks for the rewards."""
    row: str = ""
    """Of README's table, where it is not the name."""
    environment: str = ""
    """The name of its lock file, where it is not the key."""
    own_environment: bool = True
    """False where fivescore's own installation has it."""
    markers: bool = False
    """Whether it carries the policy's texts as they are, not as decoded token ids."""
    turns: bool = True
    """Whether a prompt may have several turns; else it is one text, the user's."""
    renders: bool = False
    """Whether it renders with the reward model's tokenizer, so that special tokens are read as
    such."""
    emulated: str = ""
    """What of it is not its own code, and why."""
    loses: str = ""
    """What its run sees of a restart that it does not survive; empty where nothing is lost."""

    @property
    def lock(self) -> str:
        """The name of its lock file, and of the environment that is made of it."""
        return self.environment or self.key

    @property
    def missing(self) -> str | None:
        """Why it cannot be run here; None where it can."""
        return environments.missing(self.lock) if self.own_environment else None


class Process:
    """The driver of a trainer, running.

    Args:
        policy: the folder of the policy's tokenizer.
        log: gets what the trainer prints.
    """

    def __init__(self, trainer: Trainer, policy: Path, log: Path) -> None:
        python = environments.python(trainer.lock) if trainer.own_environment else sys.executable
        self._policy = str(policy)
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                # -P: a driver has its trainer's name, and must not be imported in its place.
                [str(python), "-P", str(HERE / "drivers" / f"{trainer.key}.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=_environment(),
                text=True,
            )

    def version(self) -> str:
        """The trainer's, which the driver says first."""
        return str(self._answer()["version"])

    def rewards(self, url: str, samples: list[Sample]) -> list[float | None]:
        """The rewards that the trainer gets, all samples at once.

        Raises:
            RunEnded: with the trainer's own words.
        """
        assert self._process.stdin is not None
        job = {"url": url, "policy": self._policy, "samples": samples}
        print(json.dumps(job), file=self._process.stdin, flush=True)
        answer = self._answer()
        if "error" in answer:
            raise RunEnded(answer["error"])
        values: list[float | None] = answer["rewards"]
        assert len(values) == len(samples)
        return values

    def stop(self) -> None:
        """Have the driver end."""
        with self._process:  # which closes its pipes, and with them its input
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the driver ended:\n{self._log.read_text(errors='replace')[-3000:]}"
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def running(trainer: Trainer, policy: Path, log: Path) -> Iterator[Process]:
    """The driver of a trainer, until the end of the block."""
    process = Process(trainer, policy, log)
    try:
        yield process
    finally:
        process.stop()


def _environment() -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("FIVESCORE_")}
    ours = os.pathsep.join((str(REPOSITORY / "service"), str(HERE / "kit")))
    return {**inherited, "PYTHONPATH": ours, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
