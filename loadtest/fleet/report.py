"""Writes a simulation's results: JSON, Markdown tables and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fivescore.data import markdown
from loadtest.fleet import calibration
from loadtest.report import ROOT, marked

PAGE = ROOT / "docs" / "scale.md"
Result = Mapping[str, Any]
Row = Mapping[str, Any]
SHARES = {"share of ideal", "prefix hits", "hits at this load", "error", "load",
          "of many HTTP processes", "least share", "largest share"}  # fmt: skip
"""Columns with two decimals."""
CHANGES = {"tokens computed more", "prompts on several engines"}
"""Columns in per cent."""
TITLES = {
    "scaling": "One step of 64 prompts x 8 responses per engine, all at once",
    "seeds": "The same with other prompts and lengths",
    "latency": "Steps of 64 prompts x 8 responses of independent trainers, at 0.7 of the ideal",
    "factors": "100 engines, hash with escape to the next: the bound",
    "steps": "100 engines: few or many prompts in a step, and longer responses",
    "example": "A step of 1,024 prompts x 16 responses, hash with escape to the next",
    "http": "Engines behind one HTTP process, one step of 64 prompts x 8 responses per engine",
    "lost": "An engine is lost and does not come back",
    "lost in step": "An engine is lost half-way through a step that came all at once",
    "fit": "The constants against the measured loads of one H100",
}
COLOURS = {"load": "#d62728", "hash": "#1f77b4", "hash, escape to the next": "#2ca02c",
           "hash, escape to the least loaded": "#9467bd"}  # fmt: skip


def write(folder: Path, result: Result) -> None:
    """Write ``fleet.json``, ``fleet.md`` and ``fleet.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fleet.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "fleet.md").write_text(full(result))
    plot(result).savefig(folder / "fleet.png", dpi=90)


def write_reality(folder: Path, result: Result) -> None:
    """Write ``reality.json`` and ``reality.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reality.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "reality.md").write_text(reality(result))


def write_page(folder: Path, page: Path = PAGE) -> None:
    """Put the tables of the results in ``folder`` between their markers in ``docs/scale.md``."""
    found = tables(json.loads((folder / "fleet.json").read_text()))
    found["reality"] = reality(json.loads((folder / "reality.json").read_text()))
    text = page.read_text()
    for name, one in found.items():
        lines = one.rstrip("\n").replace("\\", r"\\") + "\n"
        text = marked(name).sub(lines, text)
    page.write_text(text)


def full(result: Result) -> str:
    """Every table under its title."""
    parts = [f"{title}:\n\n{section(result, name)}" for name, title in TITLES.items()]
    return "\n\n".join([*parts, f"`{result['command']}`"]) + "\n"


def section(result: Result, name: str) -> str:
    """The table of one study."""
    rows = result[name]
    if name == "fit":
        rows = [{"model": case, **row} for case, one in rows.items() for row in one]
    return table(rows)


def tables(result: Result) -> dict[str, str]:
    """The tables of ``docs/scale.md``, by the names of their markers."""
    scaling = [row for row in result["scaling"] if row["model"] == "8b-bf16"]
    http = [{name: row[name] for name in list(row) if name != "of many HTTP processes"}
            for row in result["http"] if row["engines"] in (1, 4, 8, 16)]  # fmt: skip
    return {
        "corpus": table(corpus()),
        "scaling": pivot(scaling, "engines", "share of ideal", "prefix hits"),
        "seeds": table(result["seeds"]),
        "latency": pivot(result["latency"], "engines", "p99, s"),
        "factors": table(result["factors"]),
        "steps": pivot(result["steps"], ("prompts per engine", "own tokens"), "share of ideal"),
        "example": table(result["example"]),
        "http": table(http),
        "lost": table(result["lost"]),
        "step": table(result["lost in step"]),
    }


def corpus() -> list[Row]:
    """GPU-hours of 10^8 and 10^10 pairs of 512 tokens on an H100, nothing shared."""
    return [
        {"model": case, "pairs/s measured": (rate := calibration.pairs_per_second(case)),
         "GPU-hours, 10^8 pairs": f"{1e8 / rate / 3600:,.0f}",
         "GPU-hours, 10^10 pairs": f"{1e10 / rate / 3600:,.0f}",
         "engines for 10^10 in 30 days": f"{1e10 / rate / (30 * 86400):,.0f}"}
        for case in calibration.MODELS
    ]  # fmt: skip


def pivot(rows: Sequence[Row], index: str | tuple[str, ...], value: str, more: str = "") -> str:
    """One line for each value of ``index``, one column for each routing; ``more`` in brackets."""
    names = (index,) if isinstance(index, str) else index
    lines: dict[tuple[object, ...], dict[str, str]] = {}
    for row in rows:
        cell = _cell(value, row[value])
        if row.get("overloaded"):
            cell = "overloaded"
        if more:
            cell += f" ({_cell(more, row[more])})"
        lines.setdefault(tuple(row[name] for name in names), {})[row["routing"]] = cell
    columns = list(dict.fromkeys(row["routing"] for row in rows))
    cells = [[*map(str, key), *(line[name] for name in columns)] for key, line in lines.items()]
    return markdown.table([*names, *columns], cells)


def reality(result: Result) -> str:
    """The comparison with real engines."""
    names = ("load", "routing", "measured, s", "predicted, s", "measured, pairs/s",
             "predicted, pairs/s", "error")  # fmt: skip
    rows = [{name: row[name] if name != "load" else str(row[name]) for name in names}
            for row in result["loads"]]  # fmt: skip
    end = f"Largest error {result['largest error']:.3f}, bar {result['bar']}"
    return f"{table(rows)}\n\n{end}; {result['machine']}; `{result['command']}`\n"


def table(rows: Sequence[Row]) -> str:
    """Rows with the same keys as Markdown."""
    cells = [[_cell(name, value) for name, value in row.items()] for row in rows]
    return markdown.table(list(rows[0]), cells)


def _cell(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    if name in SHARES:
        return f"{value:.2f}"
    if name in CHANGES:
        return f"{value + 0.0:.2%}"
    if "pairs/s" in name:
        return f"{value:,.0f}"
    return f"{value:.2g}" if value < 0.01 else f"{value:.3g}"


def plot(result: Result) -> Figure:
    """Share of the ideal over engines, and what one HTTP process feeds."""
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    share, hits, feeds = figure.subplots(1, 3)
    rows = [row for row in result["scaling"] if row["model"] == "8b-bf16"]
    for name, colour in COLOURS.items():
        mine = [row for row in rows if row["routing"] == name]
        engines = [row["engines"] for row in mine]
        for axes, column in ((share, "share of ideal"), (hits, "prefix hits")):
            axes.plot(engines, [row[column] for row in mine], "o-", color=colour, label=name)
            axes.set_ylabel(column)
    for case in dict.fromkeys(row["model"] for row in result["http"]):
        mine = [row for row in result["http"] if row["model"] == case]
        feeds.plot([row["engines"] for row in mine], [row["pairs/s"] for row in mine], "o-",
                   label=case)  # fmt: skip
    feeds.set_ylabel("pairs/s behind one HTTP process")
    for axes in (share, hits, feeds):
        axes.set_xscale("log")
        axes.set_xlabel("engines")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
    share.set_title("8B bf16, 64 prompts x 8 responses per engine")
    return figure
