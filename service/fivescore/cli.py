"""The command line: ``fivescore serve``, ``check``, ``score``, ``evaluate``, ``train``, ``import``
and ``inspect``."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, NoReturn

from fivescore import __version__, streams
from fivescore.errors import ConfigurationError, FivescoreError
from fivescore.exhaustion import LEAST_ADDRESSES, check_addresses, plain_reason
from fivescore.leaving import leave, skip_finalization

LIGHT = ("score", "evaluate")
"""Commands that ask a server, and do not import what computes."""

WITHOUT_DOCSTRINGS = 2
"""The value of PYTHONOPTIMIZE from which on there are no docstrings; 1 takes assertions away."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns the exit status: 0, 1 after a failure (one line on standard error, or on standard output
    where that is closed), 2 for wrong usage, 130 when interrupted.
    """
    streams.open_missing()
    return leave(_status_of(list(sys.argv[1:] if argv is None else argv)))


def _status_of(arguments: list[str]) -> int:
    try:
        status = _exit_status(arguments)
        sys.stdout.flush()
        return status
    except FivescoreError as error:
        streams.say(f"fivescore: error: {error}")
    except BrokenPipeError:  # who read the output has read enough
        pass
    except Exception as error:
        if (reason := plain_reason(error)) is None:
            raise
        streams.say(f"fivescore: error: {reason}")
    except KeyboardInterrupt:
        return 130
    streams.settle(sys.stdout)
    return 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        with redirect_stderr(streams.for_errors()):
            super().error(message)


def _exit_status(arguments: list[str]) -> int:
    try:
        return _run(arguments)
    except SystemExit as ended:  # after the help, the version or wrong usage
        return int(ended.code or 0)


def _run(arguments: list[str]) -> int:
    serving = arguments[:1] in (["serve"], ["check"])
    engine = _take_engine_flags(arguments) if serving else {}
    flags = vars(_parser(serving).parse_args(arguments))
    run = flags.pop("run")
    if engine:
        flags["engine"] = engine
    if arguments[0] not in LIGHT:
        check_addresses(LEAST_ADDRESSES)
        _check_docstrings()
    return int(run(flags))


def _check_docstrings() -> None:
    """Refuse an interpreter that has none: transformers reads those of its models.

    Raises:
        ConfigurationError: it has none.
    """
    if sys.flags.optimize >= WITHOUT_DOCSTRINGS:
        raise ConfigurationError(
            f"PYTHONOPTIMIZE={sys.flags.optimize} (python -OO) takes docstrings away, and"
            " transformers reads those of its models: set it to 1, or leave it out"
        )


def _parser(serving: bool) -> argparse.ArgumentParser:
    parser = _Parser(prog="fivescore", description="A reward-model service.")
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
        from fivescore.evaluation.command import add_command as add_evaluate
        from fivescore.labelling.command import add_command as add_score
        from fivescore.model.importers.command import add_commands as add_import
        from fivescore.training.command import add_command as add_train

        add_score(commands)
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


def _check(flags: dict[str, Any]) -> int:
    with _server_extra():
        from fivescore.check import check
    return check(flags)


def _serve(flags: dict[str, Any]) -> int:
    skip_finalization()
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
