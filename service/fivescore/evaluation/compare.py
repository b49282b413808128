"""Two servers on the same pairs: how similar their scores are, and which preferences flip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fivescore.data.reader import Source
from fivescore.data.rows import Row
from fivescore.data.statistics import Array, correlations
from fivescore.errors import ConfigurationError
from fivescore.evaluation import plots, report
from fivescore.evaluation.session import Options, Session
from fivescore.evaluation.shapes import (
    PREFERENCE_FIELDS,
    helpsteer2_prompt,
    preferences,
    prompt,
    scored_fields,
    text,
    usable,
)
from fivescore.evaluation.store import Failure, Result, pair_key
from fivescore.evaluation.tally import count, judge, reward

MOST_SHOWN = 20
"""The most flipped preferences that the Markdown report lists."""
SHOWN_CHARACTERS = 300
"""Length to which texts are cut in the report."""
FILES = ("scores-a.jsonl", "scores-b.jsonl")


@dataclass(frozen=True)
class Pairs:
    """The pairs for both servers; ``places`` say where each one is in the data.

    With ``preferred`` the pairs are, in turn, the chosen and the rejected response of a preference.
    """

    pairs: list[dict[str, Any]]
    places: list[str]
    preferred: bool


def pairs_of(sources: Sequence[Source]) -> Pairs:
    """The pairs of preference rows, or of rows with prompt and response.

    Raises:
        ConfigurationError: no row can be used.
    """
    names = {name for source in sources for row in source.rows for name in row.fields()}
    if "response" in names and not names & PREFERENCE_FIELDS:
        rows = usable(sources, _pair, "pairs (prompt and response)")
        return Pairs([pair for pair, _ in rows], [place for _, place in rows], False)
    preferred = preferences(sources)
    places = [
        f"{one.subset} {one.id} {side}" for one in preferred for side in ("chosen", "rejected")
    ]
    return Pairs([pair for one in preferred for pair in one.pairs()], places, True)


def _pair(source: Source, row: Row) -> tuple[dict[str, Any], str]:
    fields = scored_fields(row)
    parsed = prompt(fields)
    if isinstance(parsed, str):
        parsed = helpsteer2_prompt(fields)
    return {"prompt": parsed, "response": text(fields, "response")}, row.place


def run(options: Options, urls: tuple[str, str]) -> list[Path]:
    """Score the pairs on both servers, compare, write the report."""
    sources = options.sources()
    compared = pairs_of(sources)
    with (
        Session(replace(options, url=urls[0]), FILES[0]) as one,
        Session(replace(options, url=urls[1]), FILES[1]) as other,
    ):
        results = one.score(compared.pairs), other.score(compared.pairs)
        measured, points = measure(compared, *results)
        names = f"A: {one.served.model}", f"B: {other.served.model}"
        title = " against ".join(names)
        figure = plots.scatter(title, names, measured["values"], points)
        sessions = {"A": one, "B": other}
        return report.write(
            "compare", title, options, sessions, sources, measured, markdown(measured), figure
        )


def measure(
    compared: Pairs, results_a: Sequence[Result], results_b: Sequence[Result]
) -> tuple[dict[str, Any], dict[str, tuple[Array, Array]]]:
    """The result for the report, and ``{value: (A's [n], B's [n])}`` of pairs that both scored.

    Raises:
        ConfigurationError: no pair was scored by both.
    """
    both = [
        (i, a, b)
        for i, (a, b) in enumerate(zip(results_a, results_b, strict=True))
        if not isinstance(a, Failure) and not isinstance(b, Failure)
    ]
    if not both:
        raise ConfigurationError("no pair could be scored by both servers")
    points = {"reward": _columns([(a.reward, b.reward) for _, a, b in both])}
    for name in both[0][1].attributes:
        if name in both[0][2].attributes:
            points[name] = _columns([(a.attributes[name], b.attributes[name]) for _, a, b in both])
    places = [i for i, _, _ in both]
    return {
        "pairs": {"total": len(results_a), "scored_by_both": len(both)},
        "values": {name: value(compared, places, *xy) for name, xy in points.items()},
        "preferences": flipped_preferences(compared, results_a, results_b)
        if compared.preferred
        else None,
    }, points


def _columns(rows: Sequence[tuple[float, float]]) -> tuple[Array, Array]:
    table = np.array(rows)
    return table[:, 0], table[:, 1]


def value(
    compared: Pairs, places: Sequence[int], values_a: Array, values_b: Array
) -> dict[str, Any]:
    """Correlations of A's and B's values ``[n]``, and their changes, which are B minus A."""
    change = values_b - values_a
    largest = int(np.argmax(np.abs(change)))
    return {
        **correlations(values_a, values_b),
        "mean_change": float(change.mean()),
        "mean_absolute_change": float(np.abs(change).mean()),
        "std_a": float(values_a.std()),
        "largest": {
            "change": float(change[largest]),
            "a": float(values_a[largest]),
            "b": float(values_b[largest]),
            **_shown(compared, places[largest]),
        },
    }


def _shown(compared: Pairs, index: int) -> dict[str, Any]:
    pair = compared.pairs[index]
    return {
        "index": index,
        "place": compared.places[index],
        "pair": pair_key(pair, "never"),
        "prompt": str(pair["prompt"])[:SHOWN_CHARACTERS],
        "response": str(pair["response"])[:SHOWN_CHARACTERS],
    }


def flipped_preferences(
    compared: Pairs, results_a: Sequence[Result], results_b: Sequence[Result]
) -> dict[str, Any]:
    """Preferences whose outcome differs between A and B; ``flipped`` are strict reversals."""
    a, b = [reward(result) for result in results_a], [reward(result) for result in results_b]
    outcomes = [
        (judge(a[i], a[i + 1]), judge(b[i], b[i + 1])) for i in range(0, len(compared.pairs), 2)
    ]
    changed = Counter(f"{one} to {other}" for one, other in outcomes if one != other)
    flips = [row for row, pair in enumerate(outcomes) if set(pair) == {"right", "wrong"}]
    return {
        "a": count(one for one, _ in outcomes).summary(),
        "b": count(other for _, other in outcomes).summary(),
        "changed": dict(changed),
        "flipped": len(flips),
        "flipped_share": len(flips) / len(outcomes),
        "flipped_rows": [
            {
                "row": row,
                "place": compared.places[2 * row].removesuffix(" chosen"),
                "margin_a": _margin(a, row),
                "margin_b": _margin(b, row),
            }
            for row in flips
        ],
    }


def _margin(rewards: Sequence[float | None], row: int) -> float:
    chosen, rejected = rewards[2 * row], rewards[2 * row + 1]
    assert chosen is not None
    assert rejected is not None
    return chosen - rejected


def markdown(measured: Mapping[str, Any]) -> list[str]:
    """The report's Markdown sections."""
    columns = ("pearson", "spearman", "kendall", "mean_change", "mean_absolute_change", "std_a")
    values = measured["values"]
    pairs = measured["pairs"]
    largest = [(name, one["largest"]) for name, one in values.items()]
    parts = [
        f"{pairs['scored_by_both']} of {pairs['total']} pairs were scored by both. Changes are"
        " B minus A.",
        report.table(["value", *columns],
                     [[name, *(one[column] for column in columns)]
                      for name, one in values.items()]),
        "The largest changes:",
        report.table(["value", "change", "A", "B", "where", "pair"],
                     [[name, one["change"], one["a"], one["b"], one["place"], one["pair"][:16]]
                      for name, one in largest]),
    ]  # fmt: skip
    if measured["preferences"]:
        parts += _preference_sections(measured["preferences"])
    return parts


def _preference_sections(measured: Mapping[str, Any]) -> list[str]:
    sides = [
        [side.upper(), report.percent(measured[side]["accuracy"]), measured[side]["ties"],
         measured[side]["failed"]]
        for side in ("a", "b")
    ]  # fmt: skip
    rows = [
        [one["place"], one["margin_a"], one["margin_b"]]
        for one in measured["flipped_rows"][:MOST_SHOWN]
    ]
    changed = ", ".join(f"{n} {what}" for what, n in measured["changed"].items()) or "none"
    share = report.percent(measured["flipped_share"])
    parts = [
        f"**{measured['flipped']} preferences flipped** ({share}%)."
        f" Outcomes that changed: {changed}.",
        report.table(["server", "accuracy", "ties", "failed"], sides),
    ]
    if rows:
        parts.append(report.table(["flipped", "margin A", "margin B"], rows))
    return parts
