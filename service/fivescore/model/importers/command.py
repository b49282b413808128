"""``fivescore import`` and ``fivescore inspect``."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fivescore import __version__
from fivescore.errors import ConfigurationError

DIGESTED = ("*.safetensors", "*.bin", "*.pt", "*.json", "*.model", "*.jinja")
"""Names of a folder's files that its sha256 is of."""
RECOGNISED = frozenset(
    {"kind", "base", "tokenizer", "manifest", "revision", "token", "minus", "normalize"}
)
"""Flags that are fields of ``Options``."""
BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
MINUTE = 60.0
"""Seconds between two lines of progress where there is no terminal."""

SOURCE = "a folder, a .nemo file, a PEFT adapter or a hub id"
LINK = "link files of weights that stay as they are, instead of writing them anew"
NO_PROOF = "write no proof, which takes as long as a few passes of the model"
NORMALIZE = "apply the mean and standard deviation in OpenRLHF's config.json"
OPTIONS = {
    "--kind": ("KIND", "what to take the source for, of --list [recognised]"),
    "--base": ("MODEL", "the base model of a PEFT adapter [the one that it names]"),
    "--tokenizer": ("MODEL", "a folder or hub id whose tokenizer and template are taken"),
    "--manifest": ("FILE", "a reward.json, or a preset, that says what the outputs mean"),
    "--revision": ("REVISION", "the revision of a repository on the hub"),
    "--token": ("TOKEN", "id or string of a token whose logit is a language model's reward"),
    "--minus": ("TOKEN", "id or string of a token whose logit is subtracted"),
}


def add_commands(commands: Any) -> None:
    """Add ``import`` and ``inspect`` to the command line."""
    imports = commands.add_parser(
        "import",
        help="make a servable folder of a published reward model",
        description="Make a folder that fivescore serve takes as it is, of a folder, a .nemo file,"
        " a PEFT adapter or a repository of the hub. An import that was interrupted continues when"
        " it is started again.",
        allow_abbrev=False,
    )
    imports.add_argument("source", nargs="?", metavar="SOURCE", help=SOURCE)
    imports.add_argument("--output", type=Path, metavar="DIR", help="the new folder")
    imports.add_argument("--list", action="store_true", help="list the kinds, and exit")
    imports.add_argument("--link", action="store_true", help=LINK)
    imports.add_argument("--no-proof", action="store_true", help=NO_PROOF)
    _add_options(imports)
    imports.set_defaults(run=lambda flags: _import(imports, flags))
    inspect = commands.add_parser(
        "inspect",
        help="say what a source is, and whether it can be served or imported",
        description="Say what a source is, and whether it can be served, imported or neither, from"
        " its configuration and its tensors' names and shapes. The exit status is 1 where neither.",
        allow_abbrev=False,
    )
    inspect.add_argument("source", metavar="SOURCE", help=SOURCE)
    _add_options(inspect)
    inspect.set_defaults(run=_inspect)


def _add_options(parser: argparse.ArgumentParser) -> None:
    for flag, (metavar, text) in OPTIONS.items():
        parser.add_argument(flag, metavar=metavar, help=text)
    parser.add_argument("--normalize", action="store_true", help=NORMALIZE)


def _import(parser: argparse.ArgumentParser, flags: dict[str, Any]) -> int:
    if flags["list"]:
        return _list()
    if flags["source"] is None or flags["output"] is None:
        parser.error("give SOURCE and --output DIR, or --list")
    if flags["minus"] is not None and flags["token"] is None:
        parser.error("--minus needs --token")
    with _extra():
        from fivescore.model.importers import meaning, recognition, sources
        from fivescore.model.importers.writing import Writer

        if not flags["no_proof"]:
            importlib.import_module("accelerate")
    _quiet()
    options = _options(flags)
    name, folder = flags["source"], flags["output"]
    place = sources.resolve(name, options.revision)
    plan = recognition.plan_at(place, name, options)
    print(f"{name}: {plan.sentence}", file=sys.stderr)
    plan = meaning.settled(plan)
    writer = Writer(plan, folder, place, flags["link"])
    with _bar(f"{writer.bytes:,} bytes of weights", writer.bytes) as bar:
        writer.write(bar)
    manifest = plan.manifest
    if not flags["no_proof"]:
        manifest = _proved(plan, folder)
    with _bar("sha256 of the source", 1.0) as bar:
        origin = _origin(name, place, bar.update)
    writer.finish(manifest.model_copy(update={"source": origin}))
    print(f"{folder} is written: fivescore serve --model {folder}", file=sys.stderr)
    return 0


def _proved(plan: Any, folder: Path) -> Any:
    """The plan's manifest with a proof."""
    from fivescore.model.importers.proving import prove

    try:
        with _bar("proof", 1.0) as bar:
            return prove(plan, folder, bar.update)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error.detail}; the weights are written: the same command with --no-proof makes the"
            " folder without a proof"
        ) from error


def _inspect(flags: dict[str, Any]) -> int:
    with _extra():
        from fivescore.model.importers import recognition, sources
    _quiet()
    options = _options(flags)
    name = flags["source"]
    place = sources.resolve(name, options.revision, weights=False)
    served = _served(name, options.revision)
    try:
        plan = recognition.plan_at(place, name, options)
    except ConfigurationError:
        if not served:
            raise
        print(f"{name}: a reward model whose head is as its {served} says")
        plan = None
    if plan is not None:
        head = plan.manifest.head.kind
        print(f"{name}: {plan.sentence}")
        print(f"kind: {plan.kind}; outputs: {plan.manifest.outputs}; head: {head}")
    preset = "" if plan is None or served else _preset(plan.manifest)
    if served or preset:
        given = f" --manifest {preset}" if preset else ""
        print(f"It can be served as it is: fivescore serve --model {name}{given}")
    if plan is not None:
        given = f" --kind {options.kind}" if options.kind else ""
        print(f"It can be imported: fivescore import {name}{given} --output DIR")
    return 0


def _preset(manifest: Any) -> str:
    """The preset with which a head that needs no conversion is served; empty without one."""
    from fivescore.model.head import TokenHead
    from fivescore.model.manifest import PRESETS

    def deciding(one: Any) -> tuple[Any, ...]:
        return one.head, one.prompt.bos, one.prompt.principle

    return next(
        (
            name
            for name, preset in PRESETS.items()
            if isinstance(preset.head, TokenHead) and deciding(preset) == deciding(manifest)
        ),
        "",
    )


def _list() -> int:
    with _extra():
        from fivescore.model.importers.recognition import ADAPTER, KINDS, NEMO
    for kind in (*KINDS, ADAPTER, NEMO):
        print(f"{kind.name:10} {kind.described}")
    return 0


def _options(flags: dict[str, Any]) -> Any:
    from fivescore.model.importers.options import Options
    from fivescore.model.importers.recognition import check_kind

    check_kind(flags["kind"])
    return Options(**{name: flags[name] for name in RECOGNISED})


def _served(name: str, revision: str | None) -> str:
    """The file that describes the head with which ``fivescore serve`` takes the source; else empty.

    A repository whose weights are not here is not said to be servable.
    """
    from fivescore.model import manifest as manifests
    from fivescore.model import tensors
    from fivescore.model.checkpoint import Checkpoint
    from fivescore.settings import Settings

    if Path(name).exists() and not Path(name).is_dir():
        return ""
    settings = Settings(model=name, revision=revision)
    try:
        if tensors.read(settings) is None:
            return ""
        Checkpoint(settings)
        found = manifests.beside(name, revision, name)
    except ConfigurationError:
        return ""
    return "config.json" if found is None else manifests.FILE_NAME


def _origin(name: str, place: Path, done: Callable[[float], Any]) -> Any:
    """Where the import came from; a repository of the hub with its commit."""
    from fivescore.model.importers.writing import digest
    from fivescore.model.manifest import Source

    shown = name if Path(name).exists() else f"{name}@{place.name}"
    return Source(
        **{"from": shown},
        sha256=digest(place, DIGESTED, done),
        by=f"fivescore import {__version__}",
    )


@contextlib.contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is not installed: pip install 'fivescore[import]'"
        ) from error


def _bar(what: str, total: float) -> Any:
    """A progress bar on a terminal; elsewhere lines, which are read later."""
    if not sys.stderr.isatty():
        return _Lines(what, total)
    from tqdm import tqdm

    return tqdm(total=total, desc=what, bar_format=BAR, dynamic_ncols=True)


class _Lines:
    """A line of progress on standard error at most every ``MINUTE``."""

    def __init__(self, what: str, total: float) -> None:
        self._what, self._total = what, total
        self._done, self._last = 0.0, time.monotonic()

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, amount: float) -> None:
        self._done += amount
        if time.monotonic() - self._last >= MINUTE:
            self._last = time.monotonic()
            print(f"{self._what}: {self._done / self._total:.0%}", file=sys.stderr, flush=True)


def _quiet() -> None:
    """Warnings of libraries, and their own progress, are not what was asked for."""
    from transformers.utils import logging as transformers_logging

    logging.getLogger("fivescore").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
