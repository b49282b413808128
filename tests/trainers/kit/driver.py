"""The end of a trainer's process: it reads jobs on standard input and answers each with rewards.

It runs in the trainer's own environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import distribution
from typing import Any, NamedTuple


class Job(NamedTuple):
    """What is to be scored."""

    url: str
    """The server's address."""
    policy: str
    """The folder of the policy's tokenizer."""
    samples: list[dict[str, Any]]
    """Each with ``messages`` and ``response``."""


Rewards = Sequence[float | None]

# Trainers print when they are imported.
_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def main(version: str, rewards: Callable[[Job], Rewards]) -> None:
    """Answer jobs until standard input ends.

    Each answer is a line: the rewards of the job's samples, or the error that ends the run. What
    the trainer prints goes to standard error.

    Args:
        version: of the trainer, or the commit.
        rewards: has the trainer ask for the rewards of a job; may raise what the trainer raises.
    """
    _say({"version": version})
    for line in sys.stdin:
        job = Job(**json.loads(line))
        try:
            values = rewards(job)
            _say({"rewards": [None if one is None else float(one) for one in values]})
        except BaseException as error:
            _say({"error": f"{type(error).__name__}: {error}"})


def commit(name: str) -> str:
    """The start of the commit that a package was installed from."""
    source = json.loads(distribution(name).read_text("direct_url.json") or "{}")
    return str(source["vcs_info"]["commit_id"][:8])


def checked_out(repository: str) -> str:
    """The start of the commit that was checked out."""
    git = ["git", "-C", f"{sys.prefix}/src/{repository}", "rev-parse", "--short=8", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=_answers, flush=True)
