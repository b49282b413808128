"""``make published``: every kind of published reward model, imported, served and compared."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from transformers.utils import logging as transformers_logging

from tests.published.comparison import Outcome, compare, table
from tests.published.rows import DIRECT, IN_PARALLEL, ROWS


def main() -> int:
    """Print a table in markdown; the exit status is 1 where something differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.published", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"some of: {'; '.join(ROWS)}")
    parser.add_argument("--ranks", type=int, default=1, help="tensor parallelism of these rows")
    parser.add_argument("--direct", action="store_true", help="serve these rows without an import")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    # Without it vLLM asks for a NUMA node for each rank.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    wanted = [(name, arguments.direct, arguments.ranks) for name in arguments.rows] or _all()
    outcomes: list[Outcome] = []
    for line in table(_kept(wanted, outcomes)):
        print(line, flush=True)
    for outcome in outcomes:
        for fault in outcome.faults:
            print(f"{outcome.name}, {outcome.how}: {fault}")
    return 1 if any(outcome.faults for outcome in outcomes) else 0


def _all() -> list[tuple[str, bool, int]]:
    imported = [(name, False, 1) for name in ROWS]
    direct = [(name, True, 1) for name in DIRECT]
    return [*imported, *direct, *((name, False, 2) for name in IN_PARALLEL)]


def _kept(wanted: list[tuple[str, bool, int]], outcomes: list[Outcome]) -> Iterator[Outcome]:
    for name, direct, ranks in wanted:
        with tempfile.TemporaryDirectory() as scratch:
            outcomes.append(compare(name, ROWS[name], Path(scratch), direct=direct, ranks=ranks))
        yield outcomes[-1]


if __name__ == "__main__":
    sys.exit(main())
