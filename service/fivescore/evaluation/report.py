"""Writes a report: all results as JSON, a summary as Markdown, a plot."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fivescore import __version__
from fivescore.data import markdown
from fivescore.data.reader import Source
from fivescore.errors import TooLong
from fivescore.evaluation.session import Options, Session

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIBRARIES = ("numpy", "scipy", "matplotlib", "httpx")
PLOT_DPI = 130
_ADVICE = {TooLong.code: "; `--truncate prompt_start` shortens such pairs"}
_USER_INFO = re.compile(r"://[^/@\s]*@")


def write(
    name: str,
    title: str,
    options: Options,
    sessions: Mapping[str, Session],
    sources: Sequence[Source],
    result: dict[str, Any],
    sections: Sequence[str],
    figure: Figure,
) -> list[Path]:
    """Write ``name``.json, .md and .png into the output folder; returns their paths.

    Args:
        sessions: by their names in the report; a single one has an empty name.
        sections: the Markdown below the head.
    """
    document = {**head(name, options, sessions, sources), "result": result}
    paths = [options.output / f"{name}.{suffix}" for suffix in ("json", "md", "png")]
    paths[0].write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    image = f"![{title}]({paths[2].name})"
    paths[1].write_text("\n\n".join([f"# {title}", _preamble(document), *sections, image]) + "\n")
    figure.savefig(paths[2], dpi=PLOT_DPI)
    return paths


def head(
    name: str, options: Options, sessions: Mapping[str, Session], sources: Sequence[Source]
) -> dict[str, Any]:
    """Command, versions, data and servers of a run; keys in addresses are removed."""
    return {
        "evaluation": name,
        "command": [_USER_INFO.sub("://", part) for part in options.command],
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "fivescore": __version__,
            "python": platform.python_version(),
            **{library: _version(library) for library in LIBRARIES},
        },
        "data": [source.summary() for source in sources],
        "split": options.split,
        "limit": options.limit,
        "truncate": options.truncate,
        "servers": {key or "server": session.summary() for key, session in sessions.items()},
    }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _preamble(document: Mapping[str, Any]) -> str:
    lines = [f"`{' '.join(document['command'])}`, {document['finished']}", ""]
    for name, session in document["servers"].items():
        server, pairs = session["server"], session["pairs"]
        lines.append(
            f"- {name}: **{server['model']}** at {', '.join(server['urls'])}"
            f" (fivescore {server['version']}, {server['engine']}):"
            f" {pairs['scored']} of {pairs['asked']} pairs scored, {pairs['failed']} failed,"
            f" {pairs['truncated']} truncated"
        )
        lines += [
            f"  - failed: {count} with `{code}`{_ADVICE.get(code, '')}"
            for code, count in session["failures"]["by_code"].items()
        ]
    for source in document["data"]:
        digest = f", sha256 {source['sha256'][:16]}" if source["sha256"] else ""
        lines.append(f"- data: {source['origin']}, {source['rows']} rows{digest}")
        lines += [
            f"  - not used: {count} rows: {reason} (first: `{source['first'][reason]}`)"
            for reason, count in source["unusable"].items()
        ]
    if document["limit"]:
        lines.append(f"- only the first {document['limit']} rows of each source were used")
    return "\n".join(lines)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table with text in the first column and numbers in the others."""
    return markdown.table(header, rows, numbers=True)


def percent(share: float | None) -> str | None:
    """A share (0 to 1) in percent with one decimal, as RewardBench writes it."""
    return None if share is None else f"{100 * share:.1f}"


def interval(bounds: Sequence[float] | None) -> str | None:
    """A 95% interval of a share (0 to 1), in percent."""
    return None if bounds is None else f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}"
