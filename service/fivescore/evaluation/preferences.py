"""Accuracy on any preference file: how often the chosen response scores strictly higher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fivescore.data.statistics import Array, describe
from fivescore.evaluation import plots, report
from fivescore.evaluation.session import Options, Session
from fivescore.evaluation.shapes import preferences
from fivescore.evaluation.store import Failure, Result
from fivescore.evaluation.tally import Tally, count, judge, reward

Value = float | None


def by_subset(
    subsets: Sequence[str], chosen: Sequence[Value], rejected: Sequence[Value]
) -> dict[str, Tally]:
    """The tally of each subset, in order of first appearance; None is a pair that failed."""
    outcomes: dict[str, list[Any]] = {}
    for name, one, other in zip(subsets, chosen, rejected, strict=True):
        outcomes.setdefault(name, []).append(judge(one, other))
    return {name: count(judged) for name, judged in outcomes.items()}


def run(options: Options) -> list[Path]:
    """Score both responses of each row, compare, write the report; returns its files."""
    sources = options.sources()
    rows = preferences(sources)
    with Session(options) as session:
        results = session.score([pair for row in rows for pair in row.pairs()])
        measured, margins = measure([row.subset for row in rows], results[::2], results[1::2])
        title = f"Preferences: {session.served.model}"
        figure = plots.preferences(title, measured, margins)
        return report.write(
            "preferences",
            title,
            options,
            {"": session},
            sources,
            measured,
            markdown(measured),
            figure,
        )


def measure(
    subsets: Sequence[str], chosen: Sequence[Result], rejected: Sequence[Result]
) -> tuple[dict[str, Any], Array]:
    """The result for the report, and the margins (chosen minus rejected) ``[scored rows]``."""
    by_value = {name: by_subset(subsets, _values(chosen, name), _values(rejected, name))
            for name in ["reward", *_attributes(chosen)]}  # fmt: skip
    margins = np.array(
        [
            one.reward - other.reward
            for one, other in zip(chosen, rejected, strict=True)
            if not isinstance(one, Failure) and not isinstance(other, Failure)
        ]
    )
    total = {name: _sum(tallies) for name, tallies in by_value.items()}
    return {
        "overall": total["reward"].summary(),
        "subsets": {name: tally.summary() for name, tally in by_value["reward"].items()},
        "by_attribute_alone": {
            name: tally.summary() for name, tally in total.items() if name != "reward"
        },
        "margin": describe(margins) if len(margins) else None,
    }, margins


def _attributes(results: Sequence[Result]) -> list[str]:
    return next((list(one.attributes) for one in results if not isinstance(one, Failure)), [])


def _values(results: Sequence[Result], name: str) -> list[Value]:
    if name == "reward":
        return [reward(one) for one in results]
    return [None if isinstance(one, Failure) else one.attributes[name] for one in results]


def _sum(tallies: Mapping[str, Tally]) -> Tally:
    parts = list(tallies.values())
    return Tally(
        sum(one.right for one in parts),
        sum(one.wrong for one in parts),
        sum(one.ties for one in parts),
        sum(one.failed for one in parts),
    )


def markdown(measured: Mapping[str, Any]) -> list[str]:
    """The report's Markdown sections; accuracies are percentages."""
    columns = ["rows", "right", "wrong", "ties", "failed", "accuracy", "95%"]
    every = {"**all**": measured["overall"], **measured["subsets"]}
    alone = measured["by_attribute_alone"]
    parts = [
        "A tie counts as wrong, and so does a row that could not be scored.",
        report.table(["subset", *columns], [[name, *_line(one)] for name, one in every.items()]),
    ]
    if alone:
        parts.append("With one attribute alone as the reward:")
        parts.append(
            report.table(
                ["attribute", *columns], [[name, *_line(one)] for name, one in alone.items()]
            )
        )
    return parts


def _line(one: Mapping[str, Any]) -> list[Any]:
    counts = [one[name] for name in ("rows", "right", "wrong", "ties", "failed")]
    return [*counts, report.percent(one["accuracy"]), report.interval(one["interval"])]
