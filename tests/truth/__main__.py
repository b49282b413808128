"""``make truth``: random checkpoints scored by the service's path and by transformers."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from transformers.utils import logging as transformers_logging

from tests.truth.combinations import choose
from tests.truth.comparison import compare

COMBINATIONS = 200


def main() -> int:
    """Print what was compared; the exit status is 1 where something differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.truth", description=__doc__)
    parser.add_argument("--count", type=int, default=COMBINATIONS, help="combinations")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    arguments = parser.parse_args()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    seeds = range(arguments.first, arguments.first + arguments.count)
    with tempfile.TemporaryDirectory() as scratch:
        verdict = compare(map(choose, seeds), Path(scratch))
    for fault in verdict.faults:
        print(fault)
    print(f"combinations: {dict(verdict.combinations)}; pairs: {dict(verdict.pairs)}")
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
