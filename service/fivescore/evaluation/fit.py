"""Fits the weights of the combined reward to preferences, and writes them into a manifest.

HelpSteer2 (arXiv 2406.08673) searched the weights of its models on RewardBench in the same way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fivescore.data.statistics import Array
from fivescore.errors import ConfigurationError
from fivescore.evaluation import plots, report, weights
from fivescore.evaluation.rewardbench import known, row_shares
from fivescore.evaluation.session import Options, Session
from fivescore.evaluation.shapes import Preference, preferences
from fivescore.evaluation.store import Failure, Result
from fivescore.evaluation.weights import Comparisons
from fivescore.model import manifest
from fivescore.model.manifest import FILE_NAME, Combined, Manifest

Metric = Literal["accuracy", "rewardbench"]


@dataclass(frozen=True)
class Fit:
    """Options of the search.

    ``manifest`` is a file or preset that replaces the server's manifest; ``write`` is where the new
    one goes, and ``force`` allows it to overwrite a file.
    """

    metric: Metric = "accuracy"
    folds: int = 5
    resamples: int = 200
    seed: int = 0
    manifest: str | None = None
    write: Path | None = None
    force: bool = False


def run(options: Options, fit: Fit) -> list[Path]:
    """Score both responses of each row, search, write the report and the manifest.

    Raises:
        ConfigurationError: the manifest to write exists already, or there is nothing to search.
    """
    target = fit.write or options.output / FILE_NAME
    if target.exists() and not fit.force:
        raise ConfigurationError(f"{target} exists: choose another --write, or add --force")
    sources = options.sources()
    rows = preferences(sources)
    shares = _shares(rows, fit.metric)
    with Session(options) as session:
        before = base(fit.manifest, session.served.manifest)
        results = session.score([pair for row in rows for pair in row.pairs()])
        names = list(before.attributes)
        data = comparisons(rows, results, names, shares)
        measured = measure(data, names, _current_weights(before, names), fit)
        measured["as_served"] = _as_served(results, data, fit)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(fitted(before, measured["weights"]), indent=1) + "\n")
        title = f"Weights of the combined reward: {session.served.model}"
        figure = plots.weights(title, measured)
        sections = [*markdown(measured), f"The manifest with these weights: `{target}`"]
        return [
            target,
            *report.write(
                "fit-weights", title, options, {"": session}, sources, measured, sections, figure
            ),
        ]


def _shares(rows: Sequence[Preference], metric: Metric) -> Array:
    if metric == "rewardbench":
        return np.array(row_shares(known(rows)))
    return np.full(len(rows), 1 / len(rows))


def base(name: str | None, served: Mapping[str, Any]) -> Manifest:
    """The manifest that gets the new weights: the file or preset ``name``, else the server's.

    Raises:
        ConfigurationError: it cannot be read, or has no attributes.
    """
    chosen = manifest.read(name) if name else Manifest.model_validate(served)
    if not chosen.attributes:
        raise ConfigurationError(
            "the model's manifest has no attributes to weight: give one with --manifest"
        )
    return chosen


def _current_weights(before: Manifest, names: Sequence[str]) -> Array | None:
    if not isinstance(before.reward, Combined):
        return None
    return np.array([before.reward.weights.get(name, 0.0) for name in names])


def comparisons(
    rows: Sequence[Preference], results: Sequence[Result], names: Sequence[str], shares: Array
) -> Comparisons:
    """The comparisons to fit; ``results`` are, in turn, of chosen and rejected responses.

    Raises:
        ConfigurationError: no row could be scored, or the server lacks an attribute.
    """
    differences = np.zeros((len(rows), len(names)))
    for i in range(len(rows)):
        chosen, rejected = results[2 * i], results[2 * i + 1]
        if not isinstance(chosen, Failure) and not isinstance(rejected, Failure):
            if missing := set(names) - chosen.attributes.keys():
                names_missing = ", ".join(sorted(missing))
                raise ConfigurationError(f"the server's scores have no {names_missing}")
            differences[i] = [chosen.attributes[name] - rejected.attributes[name] for name in names]
    if not differences.any():
        raise ConfigurationError("no two responses have different attributes: nothing to search")
    prompts = [hashlib.sha256(json.dumps(row.prompt).encode()).digest() for row in rows]
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    return Comparisons(differences, shares, np.array([places[prompt] for prompt in prompts]))


def measure(
    data: Comparisons, names: Sequence[str], current: Array | None, fit: Fit
) -> dict[str, Any]:
    """The result for the report; ``current`` are the manifest's weights ``[k]``, or None.

    Raises:
        ConfigurationError: there are fewer prompts than folds.
    """
    if len(np.unique(data.groups)) < fit.folds:
        raise ConfigurationError(
            f"the rows have {len(np.unique(data.groups))} prompts, fewer than --folds {fit.folds}:"
            " lower it"
        )
    best = weights.search(data, fit.seed, [] if current is None else [current])
    right = weights.hits(data.differences, best.weights[None])[:, 0]
    held_out = weights.cross_validated(data, fit.folds, fit.seed)
    low, high = weights.weight_intervals(data, fit.resamples, fit.seed)

    def accuracy_of(hit: Any) -> dict[str, Any]:
        bounds = weights.accuracy_interval(hit, data, fit.resamples, fit.seed)
        return {"accuracy": weights.share(data, hit), "interval": list(bounds)}

    return {
        "metric": fit.metric,
        "rows": len(data.shares),
        "prompts": len(np.unique(data.groups)),
        "folds": fit.folds,
        "resamples": fit.resamples,
        "seed": fit.seed,
        "weights": {name: float(best.weights[i]) for i, name in enumerate(names)},
        "weight_intervals": {name: [float(low[i]), float(high[i])] for i, name in enumerate(names)},
        "weights_before": None
        if current is None
        else dict(zip(names, current.tolist(), strict=True)),
        "fitted": accuracy_of(right),
        "cross_validated": accuracy_of(held_out),
    }


def _as_served(results: Sequence[Result], data: Comparisons, fit: Fit) -> dict[str, Any]:
    """The accuracy of the server's current reward."""
    pairs = zip(results[::2], results[1::2], strict=True)
    right = np.array(
        [
            not isinstance(one, Failure)
            and not isinstance(other, Failure)
            and one.reward > other.reward
            for one, other in pairs
        ]
    )
    bounds = weights.accuracy_interval(right, data, fit.resamples, fit.seed)
    return {"accuracy": weights.share(data, right), "interval": list(bounds)}


def fitted(before: Manifest, new: Mapping[str, float]) -> dict[str, Any]:
    """The manifest with ``new`` weights and no bias, as JSON."""
    after = before.model_copy(update={"reward": Combined(weights=dict(new))})
    return after.model_dump(mode="json")


def markdown(measured: Mapping[str, Any]) -> list[str]:
    """The report's Markdown sections."""
    before = measured["weights_before"] or {}
    rows = [
        [name, value, "{:.3f} to {:.3f}".format(*measured["weight_intervals"][name]),
         before.get(name)]
        for name, value in measured["weights"].items()
    ]  # fmt: skip
    scores = [
        [
            label,
            report.percent(measured[key]["accuracy"]),
            report.interval(measured[key]["interval"]),
        ]
        for key, label in (
            ("cross_validated", "new weights, cross-validated"),
            ("fitted", "new weights, on the rows that they were searched on"),
            ("as_served", "the server's reward as it is"),
        )
    ]
    metric = "share of rows" if measured["metric"] == "accuracy" else "RewardBench's overall score"
    return [
        f"Searched on {measured['rows']} rows of {measured['prompts']} prompts for the best"
        f" {metric}; intervals are of 95%, by {measured['resamples']} bootstrap resamples of"
        f" prompts; {measured['folds']} folds. Only ratios of weights matter; the new ones have a"
        " Euclidean norm of 1.",
        report.table(["attribute", "weight", "95%", "before"], rows),
        report.table(["reward", "accuracy", "95%"], scores),
    ]
