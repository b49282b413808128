"""The command line: ``fivescore serve``, ``check``, ``score``, ``evaluate``, ``train``, ``import``
and ``inspect``."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fivescore import __version__
from fivescore.errors import ConfigurationError, FivescoreError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns the exit status: 0, 1 after a failure (one line on standard error), 2 for wrong usage,
    130 when interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        serving = arguments[:1] in (["serve"], ["check"])
        engine = _take_engine_flags(arguments) if serving else {}
        flags = vars(_parser(serving).parse_args(arguments))
        run = flags.pop("run")
        if engine:
            flags["engine"] = engine
        return int(run(flags))
    except ConfigurationError as error:
        print(f"fivescore: error: {error.detail}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser(serving: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fivescore", description="A reward-model service.")
    parser.add_argument("--version", action="version", version=f"fivescore {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve a reward model over HTTP",
        description="Serve a reward model. Any vLLM engine argument: --engine.NAME VALUE.",
        epilog="Every flag is also a variable: --log-level is FIVESCORE_LOG_LEVEL,"
        " --engine.dtype is FIVESCORE_ENGINE__DTYPE.",
        allow_abbrev=False,
    )
    serve.set_defaults(run=_serve)
    check = commands.add_parser(
        "check",
        help="compare an engine's scores with those of transformers",
        description="Compare the engine that serve would start with transformers in float32, on"
        " pairs that are awkward on purpose. Takes the flags of serve. The exit status is 1 where"
        " the two differ.",
        allow_abbrev=False,
    )
    check.add_argument("model", metavar="MODEL", help="folder or hub id of the checkpoint")
    check.add_argument("--write", action="store_true",
                       help="keep the pairs and their outputs in reward.json, as the proof of"
                       " later starts")  # fmt: skip
    check.add_argument("--pairs", type=Path, metavar="FILE",
                       help="a file of pairs (prompt and response) to compare instead")  # fmt: skip
    check.set_defaults(run=_check)
    if serving:
        _add_settings(serve)
        _add_settings(check, but="model")
    if not serving:  # these import what a server does not need
        _add_score(commands)
        from fivescore.evaluation.command import add_command as add_evaluate
        from fivescore.model.importers.command import add_commands as add_import
        from fivescore.training.command import add_command as add_train

        add_evaluate(commands)
        add_train(commands)
        add_import(commands)
    return parser


def _add_settings(parser: argparse.ArgumentParser, but: str = "") -> None:
    with _server_extra():
        from fivescore.settings import Settings
    for name, field in Settings.model_fields.items():
        if name == but:
            continue
        flag = f"--{name.replace('_', '-')}"
        text = (field.description or "").replace("%", "%%")
        if field.default not in (None, (), {}) and name != "model":
            text += f" [{field.default}]"
        if name == "engine":
            parser.add_argument("--engine.NAME", metavar="VALUE", help=text, dest="_unused",
                                default=argparse.SUPPRESS)  # fmt: skip
        elif field.annotation is bool:
            parser.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=text)
        else:
            parser.add_argument(flag, metavar="", default=argparse.SUPPRESS, help=text)


def _take_engine_flags(arguments: list[str]) -> dict[str, Any]:
    """Remove ``--engine.NAME VALUE``, ``--engine.NAME=VALUE`` and bare ``--engine.NAME``.

    Returns the values by name, True for a bare name. A value that begins with ``--`` needs the form
    with ``=``.

    Raises:
        ConfigurationError: an option occurs twice.
    """
    engine: dict[str, Any] = {}
    rest: list[str] = []
    queue = deque(arguments)
    while queue:
        word = queue.popleft()
        if not word.startswith("--engine."):
            rest.append(word)
            continue
        name, has_value, value = word.removeprefix("--engine.").partition("=")
        if has_value:
            _add_once(engine, name, value)
        elif queue and not queue[0].startswith("--"):
            _add_once(engine, name, queue.popleft())
        else:
            _add_once(engine, name, True)
    arguments[:] = rest
    return engine


def _add_once(engine: dict[str, Any], name: str, value: Any) -> None:
    spelling = name.replace("-", "_")
    if not name.endswith("+") and spelling in (one.replace("-", "_") for one in engine):
        raise ConfigurationError(f"--engine.{name} is given twice: keep one of them")
    if name in engine:  # ``name+`` adds to a list each time
        value = f"{engine[name]},{value}"
    engine[name] = value


def _add_score(commands: Any) -> None:
    from fivescore.client.defaults import BATCH_SIZE, FEW_REQUESTS, RETRY_SECONDS

    score = commands.add_parser(
        "score",
        help="score pairs on a running server",
        description="Score one pair, or a file of pairs (prompt and response), on a running"
        " server. The file is JSON Lines unless its name ends in .json, .csv or .parquet; each may"
        " be compressed (.gz). The output is JSON Lines, one line per row. A run that is started"
        " again continues where it stopped.",
        allow_abbrev=False,
    )
    score.add_argument("file", nargs="?", type=Path, help="the file of pairs to score")
    score.add_argument("-o", "--output", type=Path, help="the file for the scores")
    score.add_argument("--prompt", help="the prompt of a single pair")
    score.add_argument("--response", help="the response of a single pair")
    score.add_argument(
        "--url",
        help="the server's address, or several separated by commas; also FIVESCORE_URL"
        " [http://127.0.0.1:8000]; FIVESCORE_API_KEY holds its key",
    )
    score.add_argument("--principle", help="what pairs are judged by that have none of their own,"
                       " where the model is asked about one")  # fmt: skip
    score.add_argument("--truncate", choices=("never", "prompt_start"), default="never",
                       help="what to do with a pair that is too long [never]")  # fmt: skip
    score.add_argument("--batch-size", type=int, default=BATCH_SIZE,
                       help=f"pairs per request [{BATCH_SIZE}]")  # fmt: skip
    score.add_argument("--concurrency", type=int, default=FEW_REQUESTS,
                       help=f"concurrent requests [{FEW_REQUESTS}]")  # fmt: skip
    score.add_argument("--retry", type=float, metavar="SECONDS",
                       help="time limit of one request with all its tries; 0 tries once"
                       f" [0 for a pair, {RETRY_SECONDS:.0f} for a file]")  # fmt: skip
    score.set_defaults(run=lambda flags: _score(score, flags))


def _check(flags: dict[str, Any]) -> int:
    with _server_extra():
        from fivescore.check import check
    return check(flags)


def _serve(flags: dict[str, Any]) -> int:
    with _server_extra():
        from fivescore.serve import serve
    return serve(flags)


@contextmanager
def _server_extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the server is not installed ({error.name} is missing):"
            " pip install 'fivescore[cpu]' or 'fivescore[gpu]'"
        ) from error


def _score(parser: argparse.ArgumentParser, flags: dict[str, Any]) -> int:
    one = flags["prompt"] is not None and flags["response"] is not None
    many = flags["file"] is not None and flags["output"] is not None
    if one == many:
        parser.error("give --prompt and --response, or a file and -o")
    if min(flags["batch_size"], flags["concurrency"]) < 1:
        parser.error("--batch-size and --concurrency must be at least 1")
    try:
        return asyncio.run(_score_one(flags) if one else _score_many(flags))
    except (FivescoreError, OSError) as error:
        print(f"fivescore: error: {error}", file=sys.stderr)
        return 1


async def _score_one(flags: dict[str, Any]) -> int:
    from fivescore.client.client import AsyncRewardClient
    from fivescore.client.files import row_of

    client = AsyncRewardClient(flags["url"], deadline_seconds=flags["retry"] or 0)
    pair = {"prompt": flags["prompt"], "response": flags["response"]}
    (result,) = await client.score(
        [pair], principle=flags["principle"], truncate=flags["truncate"], errors="return"
    )
    row = row_of(result)
    print(json.dumps(row, indent=1))
    return 1 if "error" in row else 0


async def _score_many(flags: dict[str, Any]) -> int:
    from fivescore.client.client import AsyncRewardClient
    from fivescore.client.defaults import RETRY_SECONDS
    from fivescore.client.files import score_file

    retry = RETRY_SECONDS if flags["retry"] is None else flags["retry"]
    async with AsyncRewardClient(
        flags["url"],
        batch_size=flags["batch_size"],
        concurrency=flags["concurrency"],
        deadline_seconds=retry,
    ) as client:
        scored = await score_file(
            client,
            flags["file"],
            flags["output"],
            batch_size=flags["batch_size"],
            concurrency=flags["concurrency"],
            principle=flags["principle"],
            truncate=flags["truncate"],
        )
    print(f"{flags['output']}: {scored.rows} lines, {scored.failed} with an error", file=sys.stderr)
    for code, count in scored.bad.counts.most_common():
        print(f"  {count} with {code} (first: {scored.bad.first[code]})", file=sys.stderr)
    return 0
