"""Simulates fleets of engines, or compares a simulation with two real engines on a CPU."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from loadtest.fleet import reality, report, studies
from loadtest.report import RESULTS, surroundings

RESULT = RESULTS / "fleet"


def main() -> int:
    arguments = _arguments()
    if arguments.page:
        report.write_page(arguments.output)
        return 0
    if arguments.against_reality:
        result = reality.compare() | surroundings("fleet")
        report.write_reality(arguments.output, result)
        print(report.reality(result))
        return int(result["largest error"] > reality.BAR)
    result = studies.results(arguments.processes, arguments.only)
    if arguments.only:
        result = json.loads((arguments.output / "fleet.json").read_text()) | result
    else:
        result |= surroundings("fleet", ["numpy"])
    report.write(arguments.output, result)
    print(report.full(result))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.fleet", description=__doc__)
    parser.add_argument(
        "--against-reality",
        action="store_true",
        help="start two servers of the demo, one core each, and compare",
    )
    parser.add_argument("--processes", type=int, default=2, help="of the simulations [%(default)s]")
    parser.add_argument(
        "--page", action="store_true", help="only write the committed tables into docs/scale.md"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=(),
        metavar="STUDY",
        choices=sorted(report.TITLES),
        help="run only these, and keep the others' committed results",
    )
    parser.add_argument(
        "--output", type=Path, default=RESULT, metavar="FOLDER", help="[%(default)s]"
    )
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
