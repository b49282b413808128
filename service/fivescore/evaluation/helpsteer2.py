"""HelpSteer2: predicted against annotated attributes on its validation rows (arXiv 2406.08673)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fivescore.data.reader import Source
from fivescore.data.rows import BadRow, Row
from fivescore.data.statistics import Array, correlations, describe
from fivescore.errors import ConfigurationError
from fivescore.evaluation import plots, report
from fivescore.evaluation.session import Options, Session
from fivescore.evaluation.shapes import helpsteer2_prompt, scored_fields, text, usable
from fivescore.evaluation.store import Failure, Result
from fivescore.model.manifest import ATTRIBUTE_RANGE, ATTRIBUTES

MOST_BINS = 10
"""Bins of a calibration curve."""
LEVELS = range(int(ATTRIBUTE_RANGE[0]), int(ATTRIBUTE_RANGE[1]) + 1)
"""The values that annotators chose from."""


def run(options: Options) -> list[Path]:
    """Score the rows, measure, write the report; returns its files.

    Raises:
        ConfigurationError: no row is HelpSteer2's, or none could be scored.
    """
    sources = options.sources()
    pairs, truths = examples(sources)
    with Session(options) as session:
        results = session.score(pairs)
        measured, points = measure(truths, results)
        title = f"HelpSteer2 {options.split}: {session.served.model}"
        figure = plots.calibration(title, measured["attributes"], points)
        return report.write(
            "helpsteer2",
            title,
            options,
            {"": session},
            sources,
            measured,
            markdown(measured),
            figure,
        )


def examples(sources: Sequence[Source]) -> tuple[list[dict[str, Any]], dict[str, Array]]:
    """Pairs, and annotations ``{attribute: [n]}`` from 0 to 4; NaN where a row has none.

    Raises:
        ConfigurationError: no row can be used, or none has an annotation.
    """
    wanted = f"rows of HelpSteer2 (prompt, response and numbers for {', '.join(ATTRIBUTES)})"
    rows = usable(sources, _example, wanted)
    table = np.array([values for _, values in rows], dtype=np.float64)
    if not np.isfinite(table).any():
        raise ConfigurationError("no row has an annotation")
    return [pair for pair, _ in rows], {name: table[:, i] for i, name in enumerate(ATTRIBUTES)}


def _example(source: Source, row: Row) -> tuple[dict[str, Any], list[float]]:
    fields = scored_fields(row)
    pair = {"prompt": helpsteer2_prompt(fields), "response": text(fields, "response")}
    return pair, [_annotation(name, fields.get(name)) for name in ATTRIBUTES]


def _annotation(name: str, value: Any) -> float:
    if value is None or value == -100:  # how trainers mark a missing label
        return math.nan
    try:
        number = math.inf if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if math.isinf(number):
        raise BadRow(f"{name} is not a number")
    return number


def measure(
    truths: Mapping[str, Array], results: Sequence[Result]
) -> tuple[dict[str, Any], dict[str, tuple[Array, Array]]]:
    """The result for the report, and ``{attribute: (annotated [n], predicted [n])}``.

    Raises:
        ConfigurationError: no row could be scored.
    """
    scored = np.array([not isinstance(result, Failure) for result in results])
    scores = [result for result in results if not isinstance(result, Failure)]
    if not scores:
        raise ConfigurationError(f"no row could be scored: {results[0]}")
    points: dict[str, tuple[Array, Array]] = {}
    for name in ATTRIBUTES:
        if name in scores[0].attributes:
            truth = truths[name][scored]
            predicted = np.array([score.attributes[name] for score in scores])
            has = np.isfinite(truth)
            if has.any():
                points[name] = (truth[has], predicted[has])
    rewards = np.array([score.reward for score in scores])
    helpful = truths["helpfulness"][scored]
    has = np.isfinite(helpful)
    measured = {
        "rows": {"total": len(results), "scored": len(scores), "failed": int((~scored).sum())},
        "attributes": {name: attribute(*both) for name, both in points.items()},
        "reward_and_helpfulness": correlations(helpful[has], rewards[has]),
    }
    return measured, points


def attribute(truth: Array, predicted: Array) -> dict[str, Any]:
    """Errors, correlations, calibration and distributions of one attribute; arrays are ``[n]``.

    ``mse_of_mean`` is the error of a model that always answers the mean annotation.
    """
    error = predicted - truth
    return {
        "rows": len(truth),
        "mse": float(np.mean(error**2)),
        "mae": float(np.mean(np.abs(error))),
        "bias": float(np.mean(error)),
        "mse_of_mean": float(np.var(truth)),
        **correlations(truth, predicted),
        "calibration": calibration(truth, predicted),
        "true": {**describe(truth), "counts": [int((truth == level).sum()) for level in LEVELS]},
        "predicted": describe(predicted),
        "predicted_by_true": [
            {"true": level, **describe(predicted[truth == level])}
            for level in LEVELS
            if (truth == level).any()
        ],
    }


def calibration(truth: Array, predicted: Array) -> list[dict[str, Any]]:
    """The mean prediction and annotation in up to ten bins of rows, sorted by prediction.

    Bins have equally many rows, and equal predictions share one. In each bin of a calibrated model
    the mean annotation equals the mean prediction.
    """
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, MOST_BINS + 1)))
    places = np.clip(np.searchsorted(edges, predicted, side="right") - 1, 0, max(len(edges) - 2, 0))
    bins = [places == place for place in range(max(len(edges) - 1, 1))]
    return [
        {
            "rows": int(inside.sum()),
            "predicted": float(predicted[inside].mean()),
            "true": float(truth[inside].mean()),
            "error": float(truth[inside].std() / np.sqrt(inside.sum())),
        }
        for inside in bins
        if inside.any()
    ]


def markdown(measured: Mapping[str, Any]) -> list[str]:
    """The report's Markdown sections."""
    columns = ("rows", "mse", "mse_of_mean", "mae", "bias", "pearson", "spearman")
    rows = [
        [name, *(one[column] for column in columns)] for name, one in measured["attributes"].items()
    ]
    notes = [
        f"{name}: no correlation, {one['note']}."
        for name, one in measured["attributes"].items()
        if "note" in one
    ]
    helpful = measured["reward_and_helpfulness"]
    counts = measured["rows"]
    return [
        f"{counts['failed']} of {counts['total']} rows could not be scored and are left out."
        " `mse_of_mean` is the error of always predicting the mean;"
        " `bias` is predicted minus true.",
        report.table(["attribute", *columns], rows)
        if rows
        else "The model has none of HelpSteer2's attributes; only its reward is compared.",
        *notes,
        "Reward against annotated helpfulness:",
        report.table(["", "pearson", "spearman"],
                     [["reward", helpful["pearson"], helpful["spearman"]]]),
    ]  # fmt: skip
