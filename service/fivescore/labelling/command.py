"""The arguments of ``fivescore score``, and what it prints. The rest is imported when it runs."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fivescore.client.defaults import (
    BATCH_SIZE,
    FEW_REQUESTS,
    LOW_PRIORITY,
    MOST_PRIORITY,
    RETRY_SECONDS,
)
from fivescore.errors import ConfigurationError

_OF_FILES = ("prompt_column", "response_column", "messages_column", "system_column", "id_column",
             "columns", "prefix", "round", "keep_going")  # fmt: skip
"""Options that a single pair does not have."""

_OF_PAIRS = ("prompt", "response")

if TYPE_CHECKING:
    from fivescore.client.client import AsyncRewardClient
    from fivescore.client.served import Served
    from fivescore.labelling.rows import Choice
    from fivescore.labelling.score import Job, Scored, Shape

_DESCRIPTION = """\
Score one pair, or all rows of a file, on a running server.

  fivescore score --prompt "Name a prime." --response 7
  fivescore score pairs.jsonl -o scores.jsonl

Files are .jsonl, .json, .csv or .parquet, each also with .gz; a folder of them; or - for standard
input and output (JSON Lines). Every row keeps its columns and gets one column per attribute,
reward, tokens and truncated, or error. A run that was stopped continues when you run the same
command again.
"""


def add_command(commands: Any) -> None:
    """Add ``score`` to the subparsers of the command line."""
    parser = commands.add_parser(
        "score",
        help="score pairs on a running server",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", nargs="?", type=Path, help="the file or folder to score, or -")
    parser.add_argument("-o", "--output", help="the file or folder for the scored rows, or -")
    parser.add_argument("--prompt", help="the prompt of a single pair")
    parser.add_argument("--response", help="the response of a single pair")
    _add_columns(parser.add_argument_group("columns of a file"))
    _add_scores(parser.add_argument_group("what is scored, and how it is written"))
    _add_requests(parser.add_argument_group("requests"))
    parser.set_defaults(run=lambda flags: _run(parser, flags))


def _add_columns(group: Any) -> None:
    group.add_argument(
        "--prompt-column",
        metavar="NAME",
        help="the prompt's column [prompt, instruction, question, query or input,"
        " with its response]",
    )
    group.add_argument(
        "--response-column",
        metavar="NAME",
        help="the response's column [response, completion, output or answer]",
    )
    group.add_argument(
        "--messages-column",
        metavar="NAME",
        help="the column of whole conversations, which end with the response"
        " [messages, conversations or conversation]",
    )
    group.add_argument(
        "--system-column",
        metavar="NAME",
        help="a column of system prompts, which go before the prompts [none]",
    )
    group.add_argument(
        "--id-column",
        metavar="NAME",
        help="the column that identifies a row [id, where there is one; else rows"
        " get their numbers]",
    )
    group.add_argument(
        "--columns",
        metavar="NAMES",
        help="the columns that the output keeps, separated by commas [all]",
    )
    group.add_argument(
        "--prefix",
        default="",
        metavar="TEXT",
        help="put this before the names of the scores' columns [nothing]",
    )


def _add_scores(group: Any) -> None:
    group.add_argument(
        "--weights",
        type=_weights,
        metavar="NAME=NUMBER,...",
        help="weights of the combined reward, such as helpfulness=1,verbosity=-0.5 [the model's]",
    )
    group.add_argument(
        "--principle",
        help="what pairs are judged by that have none of their own,"
        " where the model is asked about one",
    )
    group.add_argument(
        "--truncate",
        choices=("never", "prompt_start"),
        default="never",
        help="what to do with a pair that is too long: fail it, or drop the start"
        " of its prompt [never]",
    )
    group.add_argument(
        "--round",
        action="store_true",
        help="round HelpSteer2's attributes to whole numbers from 0 to 4",
    )
    group.add_argument(
        "--keep-going",
        action="store_true",
        help="do not stop where the first 100 rows all fail alike",
    )


def _add_requests(group: Any) -> None:
    group.add_argument(
        "--url",
        help="the server's address, or several separated by commas; also"
        " FIVESCORE_URL [http://127.0.0.1:8000]; FIVESCORE_API_KEY holds its"
        " key",
    )
    group.add_argument(
        "--priority",
        type=int,
        metavar="N",
        help=f"from {-MOST_PRIORITY} to {MOST_PRIORITY}: requests with lower numbers"
        f" run first [0 for a pair; {LOW_PRIORITY} for a file, behind trainers,"
        " whose requests have 0]",
    )
    group.add_argument(
        "--batch-size",
        type=int,
        default=BATCH_SIZE,
        metavar="N",
        help=f"pairs per request [{BATCH_SIZE}]",
    )
    group.add_argument(
        "--concurrency",
        type=int,
        default=FEW_REQUESTS,
        metavar="N",
        help=f"concurrent requests [{FEW_REQUESTS}]",
    )
    group.add_argument(
        "--retry",
        type=float,
        metavar="SECONDS",
        help="time limit of one request with all its tries; 0 tries once"
        f" [0 for a pair, {RETRY_SECONDS:.0f} for a file]",
    )


def _weights(text: str) -> dict[str, float]:
    try:
        if text.lstrip().startswith("{"):
            parsed = json.loads(text)
        else:
            parsed = dict(part.split("=") for part in text.split(","))
        weights = {str(name).strip(): float(value) for name, value in parsed.items()}
    except (ValueError, TypeError):
        weights = {}
    if not weights or "" in weights:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form helpfulness=1,verbosity=-0.5, or JSON"
        )
    return weights


def _run(parser: argparse.ArgumentParser, flags: dict[str, Any]) -> int:
    one = flags["prompt"] is not None and flags["response"] is not None
    many = flags["file"] is not None and flags["output"] is not None
    pair, files = ([flags[name] for name in names] for names in (_OF_PAIRS, ("file", "output")))
    if one == many or any(value is not None for value in (files if one else pair)):
        parser.error("give --prompt and --response, or a file and -o")
    if one and (unused := [name for name in _OF_FILES if flags[name]]):
        parser.error(f"--{unused[0].replace('_', '-')} is for a file, not for a single pair")
    if min(flags["batch_size"], flags["concurrency"]) < 1:
        parser.error("--batch-size and --concurrency must be at least 1")
    if flags["messages_column"] and (flags["prompt_column"] or flags["response_column"]):
        parser.error("give --messages-column, or --prompt-column and --response-column")
    return asyncio.run(_score_one(flags)) if one else _score_file(flags)


def _client(flags: dict[str, Any], retry: float, priority: int) -> AsyncRewardClient:
    from fivescore.client.client import AsyncRewardClient

    return AsyncRewardClient(
        flags["url"],
        batch_size=flags["batch_size"],
        concurrency=flags["concurrency"],
        deadline_seconds=retry if flags["retry"] is None else flags["retry"],
        priority=priority if flags["priority"] is None else flags["priority"],
    )


async def _score_one(flags: dict[str, Any]) -> int:
    from fivescore.client.answers import row_of

    pair = {"prompt": flags["prompt"], "response": flags["response"]}
    (result,) = await _client(flags, 0.0, 0).score(
        [pair], **_request_options(flags), errors="return"
    )
    row = row_of(result)
    print(json.dumps(row, indent=1))
    return 1 if "error" in row else 0


def _request_options(flags: dict[str, Any]) -> dict[str, Any]:
    return {name: flags[name] for name in ("weights", "principle", "truncate")}


def _score_file(flags: dict[str, Any]) -> int:
    from fivescore.client.served import served_at
    from fivescore.data.inputs import find
    from fivescore.labelling.output import output_for
    from fivescore.labelling.run import description
    from fivescore.labelling.score import Asking, Job, score_file

    client = _client(flags, RETRY_SECONDS, LOW_PRIORITY)  # checks the options
    source = find(flags["file"])
    output = output_for(flags["output"], source)
    retry = RETRY_SECONDS if flags["retry"] is None else flags["retry"]
    served = served_at(flags["url"], retry)
    about = description(served, _options(flags))
    job = Job(
        source, output, about, _choice(flags), _shape(flags, served), flags["keep_going"],
        lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    asking = Asking(
        client, _request_options(flags), flags["batch_size"], flags["concurrency"],
        lambda seconds: served_at(flags["url"], seconds), retry,
    )  # fmt: skip
    try:
        scored = asyncio.run(score_file(job, asking))
    except BaseException as error:
        for one in (error, error.__context__):  # that of an interrupt is what asyncio cancelled
            for note in getattr(one, "__notes__", ()):
                print(note, file=sys.stderr)
        raise
    return _report(job, scored)


def _report(job: Job, scored: Scored) -> int:
    name, resume = job.output.name, job.output.resume
    earlier = f" ({scored.reused} scored earlier)" if scored.reused else ""
    print(f"{name}: {scored.rows} rows{earlier}, {scored.failed} failed", file=sys.stderr)
    for code, count in scored.bad.counts.most_common():
        print(f"  {count} with {code} (first: {scored.bad.first[code]})", file=sys.stderr)
    if scored.failed and resume is not None:
        print(f"  Run the same command again to try them again; {resume} keeps the scores.",
              file=sys.stderr)  # fmt: skip
    return 1 if scored.failed else 0


def _choice(flags: dict[str, Any]) -> Choice:
    from fivescore.client.columns import Given
    from fivescore.labelling.rows import Choice

    given = Given(
        *(flags[f"{name}_column"] for name in ("prompt", "response", "messages", "system"))
    )
    columns = flags["columns"]
    names = None if columns is None else tuple(filter(None, map(str.strip, columns.split(","))))
    return Choice(given, flags["id_column"], names)


def _shape(flags: dict[str, Any], served: Served) -> Shape:
    from fivescore.labelling.score import Shape
    from fivescore.types import ATTRIBUTES

    attributes = tuple(served.manifest.get("attributes", {}))
    if flags["round"] and not set(attributes) & set(ATTRIBUTES):
        raise ConfigurationError(
            f"--round: {served.model} has no attribute of HelpSteer2 to round, only"
            f" {', '.join((*attributes, 'reward'))}: leave --round out"
        )
    unknown = [name for name in flags["weights"] or () if name not in attributes]
    if unknown:
        raise ConfigurationError(
            f"--weights: {served.model} has no attribute {unknown[0]}: it has"
            f" {', '.join(attributes) or 'none'}"
        )
    return Shape(attributes, flags["prefix"], flags["round"])


def _options(flags: dict[str, Any]) -> dict[str, Any]:
    """What decides the output, beside the model and the input."""
    choice = _choice(flags)
    return {
        **_request_options(flags),
        "round": flags["round"],
        "prefix": flags["prefix"],
        "columns": None if choice.columns is None else list(choice.columns),
        "id_column": choice.id,
        **{f"{name}_column": value for name, value in asdict(choice.given).items()},
    }
