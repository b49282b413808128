"""The plots of the reports. They need no display: figures are only saved to files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fivescore.data.statistics import Array
from fivescore.model.manifest import ATTRIBUTE_RANGE

Points = Mapping[str, tuple[Array, Array]]
CHANCE = 0.5
"""The accuracy of a random order."""
A_COLOUR, B_COLOUR, GREY = "#1f77b4", "#d62728", "#777777"
SECTION_COLOURS = {"chat": "#1f77b4", "chat-hard": "#ff7f0e", "safety": "#2ca02c",
                   "reasoning": "#9467bd"}  # fmt: skip
MOST_POINTS = 5000
"""The most points of a scatter plot; with more pairs only every k-th is drawn."""


def _grid(title: str, rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    figure = Figure(figsize=(columns * size[0], rows * size[1] + 0.6), layout="constrained")
    figure.suptitle(title, wrap=True)
    return figure, figure.subplots(rows, columns, squeeze=False)


def calibration(title: str, measured: Mapping[str, Any], points: Points) -> Figure:
    """Per attribute, its calibration curve above and the two distributions below."""
    figure, axes = _grid(title, 2, max(len(points), 1), (3.4, 3.3))
    for column, (name, (truth, predicted)) in enumerate(points.items()):
        _calibration_curve(axes[0, column], name, measured[name])
        _histograms(axes[1, column], truth, predicted)
    if not points:
        axes[0, 0].text(0.1, 0.5, "the model has no HelpSteer2 attributes")
    return figure


def _calibration_curve(axes: Axes, name: str, one: Mapping[str, Any]) -> None:
    bins = one["calibration"]
    x = [each["predicted"] for each in bins]
    axes.plot(ATTRIBUTE_RANGE, ATTRIBUTE_RANGE, "--", color=GREY, label="calibrated")
    axes.errorbar(x, [each["true"] for each in bins], [each["error"] for each in bins],
                  fmt="o-", color=A_COLOUR, markersize=4, label="bins, ± 1 s.e.")  # fmt: skip
    label = "none" if one["pearson"] is None else f"{one['pearson']:.2f}"
    axes.set_title(f"{name}\nMSE {one['mse']:.2f}, Pearson {label}", fontsize=10)
    axes.set_xlabel("mean prediction")
    axes.set_ylabel("mean annotation")
    axes.set_ylim(ATTRIBUTE_RANGE[0] - 0.2, ATTRIBUTE_RANGE[1] + 0.2)
    axes.legend(fontsize=7)


def _histograms(axes: Axes, truth: Array, predicted: Array) -> None:
    low = min(ATTRIBUTE_RANGE[0], math.floor(predicted.min()))
    high = max(ATTRIBUTE_RANGE[1], math.ceil(predicted.max()))
    edges = np.linspace(low - 0.5, high + 0.5, 41).tolist()
    axes.hist(predicted, edges, density=True, color=B_COLOUR, alpha=0.6, label="predicted")
    levels = np.arange(low - 0.5, high + 1).tolist()
    axes.hist(truth, levels, density=True, color=A_COLOUR, alpha=0.4, label="annotated")
    axes.set_xlabel("value")
    axes.set_ylabel("density")
    axes.legend(fontsize=7)


def rewardbench(title: str, measured: Mapping[str, Any]) -> Figure:
    """Accuracy of each subset, coloured by section, with its 95% interval."""
    overall = measured["overall"]
    label = "incomplete" if overall is None else f"overall {100 * overall:.1f}"
    figure, axes = _grid(f"{title}, {label}", 1, 1, (10, 5.2))
    axis, subsets = axes[0, 0], measured["subsets"]
    colours = [SECTION_COLOURS[one["section"]] for one in subsets.values()]
    _bars(axis, list(subsets), list(subsets.values()), colours)
    for section, one in measured["sections"].items():
        label = f"{section} {100 * one['score']:.1f}" + ("" if one["complete"] else " (incomplete)")
        axis.bar([0], [0], color=SECTION_COLOURS[section], label=label)
    axis.legend(fontsize=8, loc="lower left")
    return figure


def _bars(
    axes: Axes, names: Sequence[str], tallies: Sequence[Mapping[str, Any]], colours: Sequence[str]
) -> None:
    shares = [one["accuracy"] for one in tallies]
    below = [max(0.0, one["accuracy"] - one["interval"][0]) for one in tallies]
    above = [max(0.0, one["interval"][1] - one["accuracy"]) for one in tallies]
    axes.bar(range(len(names)), shares, yerr=[below, above], color=colours, capsize=2)
    axes.axhline(CHANCE, linestyle="--", color=GREY, linewidth=1)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes.set_ylabel("accuracy")
    axes.set_ylim(0, 1.02)


def preferences(title: str, measured: Mapping[str, Any], margins: Array) -> Figure:
    """Accuracy of each subset, and the margins between the rewards of the two responses."""
    label = f"{title}, {100 * measured['overall']['accuracy']:.1f}% right"
    figure, axes = _grid(label, 1, 2, (6, 4.2))
    subsets = measured["subsets"]
    _bars(axes[0, 0], list(subsets), list(subsets.values()), [A_COLOUR] * len(subsets))
    axes[0, 1].hist(margins, 50, color=A_COLOUR)
    axes[0, 1].axvline(0, linestyle="--", color=GREY)
    axes[0, 1].set_xlabel("reward of chosen minus rejected")
    axes[0, 1].set_ylabel("rows")
    return figure


def rmbench(title: str, measured: Mapping[str, Any]) -> Figure:
    """The 3 x 3 matrix of each part."""
    parts, styles = measured["parts"], measured["styles"]
    label = f"{title}, average {100 * measured['overall']['average']:.1f}"
    figure, axes = _grid(label, 1, len(parts), (3.6, 3.8))
    for axis, (name, part) in zip(axes[0], parts.items(), strict=True):
        axis.imshow(part["matrix"], vmin=0, vmax=1, cmap="RdYlGn")
        for i, line in enumerate(part["matrix"]):
            for j, share in enumerate(line):
                axis.text(j, i, f"{100 * share:.0f}", ha="center", va="center")
        levels = ", ".join(
            f"{level} {100 * part[level]:.0f}" for level in ("easy", "normal", "hard")
        )
        axis.set_title(f"{name}\n{levels}", fontsize=10)
        axis.set_xticks(range(len(styles)), styles, rotation=30, ha="right", fontsize=8)
        axis.set_yticks(range(len(styles)), styles, fontsize=8)
        axis.set_xlabel("rejected response")
        axis.set_ylabel("chosen response")
    return figure


def weights(title: str, measured: Mapping[str, Any]) -> Figure:
    """The fitted weights with their 95% intervals, and the accuracies."""
    figure, axes = _grid(title, 1, 2, (5.2, 4.2))
    names = list(measured["weights"])
    values = [measured["weights"][name] for name in names]
    bounds = [measured["weight_intervals"][name] for name in names]
    # The value may lie outside its percentile interval.
    ends = np.maximum(0, [np.subtract(values, [low for low, _ in bounds]),
                          np.subtract([high for _, high in bounds], values)])  # fmt: skip
    axes[0, 0].bar(range(len(names)), values, yerr=ends, color=A_COLOUR, capsize=3)
    axes[0, 0].axhline(0, color=GREY, linewidth=1)
    axes[0, 0].set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes[0, 0].set_ylabel("weight (norm 1), 95%")
    kinds = {"as served": "as_served", "cross-validated": "cross_validated", "fitted": "fitted"}
    _bars(axes[0, 1], list(kinds), [measured[key] for key in kinds.values()],
          [GREY, A_COLOUR, A_COLOUR])  # fmt: skip
    return figure


def scatter(
    title: str, names: tuple[str, str], measured: Mapping[str, Any], points: Points
) -> Figure:
    """A's values against B's, one plot per value; points on the diagonal did not change."""
    columns = min(3, len(points))
    rows = math.ceil(len(points) / columns)
    figure, axes = _grid(title, rows, columns, (3.8, 3.6))
    for place, (name, (a_values, b_values)) in enumerate(points.items()):
        axis = axes[place // columns, place % columns]
        ends = [min(a_values.min(), b_values.min()), max(a_values.max(), b_values.max())]
        axis.plot(ends, ends, "--", color=GREY, linewidth=1)
        step = math.ceil(len(a_values) / MOST_POINTS)
        axis.plot(a_values[::step], b_values[::step], ".", color=A_COLOUR, markersize=3, alpha=0.5)
        label = measured[name]["spearman"]
        axis.set_title(name if label is None else f"{name}, Spearman {label:.4f}", fontsize=10)
        axis.set_xlabel(names[0])
        axis.set_ylabel(names[1])
    for place in range(len(points), rows * columns):
        axes[place // columns, place % columns].set_axis_off()
    return figure
