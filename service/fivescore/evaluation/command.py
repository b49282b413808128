"""The arguments of ``fivescore evaluate``. Each evaluation is imported when it runs."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from fivescore.client.defaults import BATCH_SIZE, FEW_REQUESTS, RETRY_SECONDS
from fivescore.errors import ConfigurationError

_DATA = {
    "helpsteer2": ("attributes of HelpSteer2's rows, predicted against annotated",
                   "nvidia/HelpSteer2", "validation"),
    "rewardbench": ("RewardBench: per subset, per section, overall",
                    "allenai/reward-bench", "filtered"),
    "rmbench": ("RM-Bench: easy, normal and hard by style", "THU-KEG/RM-Bench", "train"),
    "preferences": ("any file of preferences (prompt, chosen, rejected; or LLMBar's)", None,
                    "train"),
    "fit-weights": ("fit the combined reward's weights to preferences and write a manifest", None,
                    "train"),
    "compare": ("two servers on the same pairs or preferences", None, "train"),
}  # fmt: skip
"""Per evaluation: its help, the default hub id of its data, and the default split."""


def add_command(commands: Any) -> None:
    """Add ``evaluate`` to the subparsers of the command line."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a running server on benchmarks and preferences",
        description="Measure a running server; JSON, Markdown and a plot go to the output folder."
        " Scores are stored there as they arrive: a run that was stopped continues when you start"
        " it again.",
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
        kind.add_argument("--split", default=split, help=f"split of a hub id or folder [{split}]")
        _add_common(kind)
        if name == "fit-weights":
            _add_fit(kind)
        kind.set_defaults(run=lambda arguments, kind=kind, name=name: _run(kind, name, arguments))


def _add_server(kind: argparse.ArgumentParser, two: bool) -> None:
    if two:
        kind.add_argument(
            "servers", nargs=2, metavar="URL", help="the addresses of servers A and B"
        )
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
        help="what to do with a pair that is too long [never: it counts as failed]",
    )
    kind.add_argument("--limit", type=int, metavar="N", help="the first N rows of each source")
    kind.add_argument(
        "--fresh", action="store_true", help="discard the stored scores and score everything again"
    )
    kind.add_argument("--batch-size", type=int, default=BATCH_SIZE,
                      help=f"pairs per request [{BATCH_SIZE}]")  # fmt: skip
    kind.add_argument("--concurrency", type=int, default=FEW_REQUESTS,
                      help=f"concurrent requests [{FEW_REQUESTS}]")  # fmt: skip
    kind.add_argument("--retry", type=float, default=RETRY_SECONDS, metavar="SECONDS",
                      help="time limit of one request with all its tries"
                      f" [{RETRY_SECONDS:.0f}]")  # fmt: skip


def _add_fit(kind: argparse.ArgumentParser) -> None:
    kind.add_argument(
        "--metric",
        choices=("accuracy", "rewardbench"),
        default="accuracy",
        help="what to maximise: the accuracy over rows, or RewardBench's overall score",
    )
    kind.add_argument("--folds", type=int, default=5, help="folds of the cross-validation [5]")
    kind.add_argument("--resamples", type=int, default=200, help="resamples of the bootstrap [200]")
    kind.add_argument("--seed", type=int, default=0, help="seed of the search [0]")
    kind.add_argument("--manifest", help="a file or preset instead of the server's manifest")
    kind.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="file for the new manifest [OUTPUT/reward.json]",
    )
    kind.add_argument("--force", action="store_true", help="overwrite that file")  # fmt: skip


def _run(parser: argparse.ArgumentParser, name: str, arguments: dict[str, Any]) -> int:
    if min(arguments["batch_size"], arguments["concurrency"]) < 1:
        parser.error("--batch-size and --concurrency must be at least 1")
    if arguments["limit"] is not None and arguments["limit"] < 1:
        parser.error("--limit must be at least 1")
    if arguments.get("folds", 2) < 2 or arguments.get("resamples", 1) < 1:
        parser.error("--folds must be at least 2 and --resamples at least 1")
    try:
        paths = _evaluate(name, arguments)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"'fivescore evaluate' is not installed ({error.name} is missing):"
            " pip install 'fivescore[evaluate]'"
        ) from error
    for path in paths:
        print(path)
    return 0


def _evaluate(name: str, arguments: dict[str, Any]) -> list[Path]:
    from fivescore.evaluation.session import Options

    options = Options(
        command=["fivescore", *sys.argv[1:]],
        output=arguments["output"],
        data=arguments["data"],
        split=arguments["split"],
        url=arguments.get("url"),
        truncate=arguments["truncate"],
        batch_size=arguments["batch_size"],
        concurrency=arguments["concurrency"],
        retry_seconds=arguments["retry"],
        limit=arguments["limit"],
        fresh=arguments["fresh"],
    )
    module = import_module(f"fivescore.evaluation.{'fit' if name == 'fit-weights' else name}")
    extra: list[Any] = []
    if name == "compare":
        extra = [tuple(arguments["servers"])]
    if name == "fit-weights":
        names = ("metric", "folds", "resamples", "seed", "manifest", "write", "force")
        extra = [module.Fit(**{key: arguments[key] for key in names})]
    paths: list[Path] = module.run(options, *extra)
    return paths
