"""``fivescore evaluate``: its arguments. What it measures is imported when it runs."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from fivescore.client.defaults import BATCH_SIZE, FEW_REQUESTS, RETRY_SECONDS
from fivescore.errors import ConfigurationError, FivescoreError

_DATA = {
    "helpsteer2": ("attributes of HelpSteer2's rows, predicted against annotated",
                   "nvidia/HelpSteer2", "validation"),
    "rewardbench": ("RewardBench: per subset, per section, overall",
                    "allenai/reward-bench", "filtered"),
    "rmbench": ("RM-Bench: easy, normal and hard by style", "THU-KEG/RM-Bench", "train"),
    "preferences": ("any file of preferences (prompt, chosen, rejected; or LLMBar's)", None,
                    "train"),
    "fit-weights": ("find the combined reward's weights on preferences, write a manifest", None,
                    "train"),
    "compare": ("two servers on the same pairs or preferences", None, "train"),
}  # fmt: skip
"""What each command is for, its hub id where the data is not given, and its split there."""


def add_command(commands: Any) -> None:
    """Add ``evaluate`` to the subparsers of the command line."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a running server on benchmarks and preferences",
        description="Measure a running server; JSON, Markdown and a plot go to the output folder."
        " Scores are kept there as they come: a run that was stopped goes on when it is started"
        " again.",
        allow_abbrev=False,
    )
    kinds = parser.add_subparsers(required=True, metavar="KIND")
    for name, (what, hub, split) in _DATA.items():
        kind = kinds.add_parser(name, help=what, description=what, allow_abbrev=False)
        _add_server(kind, two=name == "compare")
        kind.add_argument(
            "data",
            nargs="*" if hub else "+",
            default=[hub] if hub else None,
            help="files, folders or hub ids" + (f" [{hub}]" if hub else ""),
        )
        kind.add_argument("--split", default=split, help=f"of a hub id or folder [{split}]")
        _add_common(kind)
        if name == "fit-weights":
            _add_fit(kind)
        kind.set_defaults(run=lambda given, kind=kind, name=name: _run(kind, name, given))


def _add_server(kind: argparse.ArgumentParser, two: bool) -> None:
    if two:
        kind.add_argument("servers", nargs=2, metavar="URL", help="A and B")
        return
    kind.add_argument(
        "--url",
        help="the server, or several with commas, also FIVESCORE_URL [http://127.0.0.1:8000];"
        " FIVESCORE_API_KEY is its key",
    )


def _add_common(kind: argparse.ArgumentParser) -> None:
    kind.add_argument("-o", "--output", type=Path, required=True, help="folder of the report")
    kind.add_argument(
        "--truncate",
        choices=("never", "prompt_start"),
        default="never",
        help="what to do with a pair that is too long [never: it has failed]",
    )
    kind.add_argument("--limit", type=int, metavar="N", help="the first N rows of each source")
    kind.add_argument("--fresh", action="store_true", help="score again what is kept already")
    kind.add_argument("--batch-size", type=int, default=BATCH_SIZE,
                      help=f"pairs per request [{BATCH_SIZE}]")  # fmt: skip
    kind.add_argument("--concurrency", type=int, default=FEW_REQUESTS,
                      help=f"requests at a time [{FEW_REQUESTS}]")  # fmt: skip
    kind.add_argument("--retry", type=float, default=RETRY_SECONDS, metavar="SECONDS",
                      help="how long one request may take, with all its tries"
                      f" [{RETRY_SECONDS:.0f}]")  # fmt: skip


def _add_fit(kind: argparse.ArgumentParser) -> None:
    kind.add_argument(
        "--metric",
        choices=("accuracy", "rewardbench"),
        default="accuracy",
        help="what to make best: the share of rows, or RewardBench's overall score",
    )
    kind.add_argument("--folds", type=int, default=5, help="of the cross-validation [5]")
    kind.add_argument("--resamples", type=int, default=200, help="of the bootstrap [200]")
    kind.add_argument("--seed", type=int, default=0, help="of the search [0]")
    kind.add_argument("--manifest", help="a file or preset instead of the server's manifest")
    kind.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="where the new manifest goes [OUTPUT/reward.json]",
    )
    kind.add_argument("--force", action="store_true", help="overwrite that file")  # fmt: skip


def _run(parser: argparse.ArgumentParser, name: str, given: dict[str, Any]) -> int:
    if min(given["batch_size"], given["concurrency"]) < 1:
        parser.error("--batch-size and --concurrency must be at least 1")
    if given["limit"] is not None and given["limit"] < 1:
        parser.error("--limit must be at least 1")
    if given.get("folds", 2) < 2 or given.get("resamples", 1) < 1:
        parser.error("--folds must be at least 2 and --resamples at least 1")
    try:
        paths = _evaluate(name, given)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"'fivescore evaluate' is not installed ({error.name} is missing):"
            " pip install 'fivescore[evaluate]'"
        ) from error
    except (FivescoreError, OSError) as error:
        print(f"fivescore: error: {error}", file=sys.stderr)
        return 1
    for path in paths:
        print(path)
    return 0


def _evaluate(name: str, given: dict[str, Any]) -> list[Path]:
    from fivescore.evaluation.session import Options

    options = Options(
        command=["fivescore", *sys.argv[1:]],
        output=given["output"],
        data=given["data"],
        split=given["split"],
        url=given.get("url"),
        truncate=given["truncate"],
        batch_size=given["batch_size"],
        concurrency=given["concurrency"],
        retry_seconds=given["retry"],
        limit=given["limit"],
        fresh=given["fresh"],
    )
    module = import_module(f"fivescore.evaluation.{'fit' if name == 'fit-weights' else name}")
    extra: list[Any] = []
    if name == "compare":
        extra = [tuple(given["servers"])]
    if name == "fit-weights":
        names = ("metric", "folds", "resamples", "seed", "manifest", "write", "force")
        extra = [module.Fit(**{key: given[key] for key in names})]
    paths: list[Path] = module.run(options, *extra)
    return paths
