"""Two servers on the same pairs: how alike their scores are, and which preferences they turn."""

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
    text,
    usable,
)
from fivescore.evaluation.store import Failure, Result, pair_key
from fivescore.evaluation.tally import count, judge, reward

MOST_SHOWN = 20
MOST_TEXT = 300
FILES = ("scores-a.jsonl", "scores-b.jsonl")


@dataclass(frozen=True)
class Pairs:
    """What both servers score; ``places`` say where each pair is in the data.

    ``preferred`` says that pairs come in twos, of which the first is preferred.
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
    found = preferences(sources)
    places = [f"{one.subset} {one.id} {side}" for one in found for side in ("chosen", "rejected")]
    return Pairs([pair for one in found for pair in one.pairs()], places, True)


def _pair(source: Source, row: Row) -> tuple[dict[str, Any], str]:
    fields = row.fields()
    found = prompt(fields)
    if isinstance(found, str):
        found = helpsteer2_prompt(fields)
    return {"prompt": found, "response": text(fields, "response")}, row.place


def run(options: Options, urls: tuple[str, str]) -> list[Path]:
    """Score the pairs on both servers, compare, write the report."""
    sources = options.sources()
    asked = pairs_of(sources)
    with (
        Session(replace(options, url=urls[0]), FILES[0]) as one,
        Session(replace(options, url=urls[1]), FILES[1]) as other,
    ):
        results = one.score(asked.pairs), other.score(asked.pairs)
        measured, points = measure(asked, *results)
        names = f"A: {one.served.model}", f"B: {other.served.model}"
        title = " against ".join(names)
        figure = plots.scatter(title, names, measured["values"], points)
        sessions = {"A": one, "B": other}
        return report.write(
            "compare", title, options, sessions, sources, measured, markdown(measured), figure
        )


def measure(
    asked: Pairs, ours: Sequence[Result], theirs: Sequence[Result]
) -> tuple[dict[str, Any], dict[str, tuple[Array, Array]]]:
    """The result for the report, and ``{value: (A's [n], B's [n])}`` of pairs that both scored."""
    both = [
        (i, a, b)
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True))
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
        "pairs": {"total": len(ours), "scored_by_both": len(both)},
        "values": {name: value(asked, places, *xy) for name, xy in points.items()},
        "preferences": turned(asked, ours, theirs) if asked.preferred else None,
    }, points


def _columns(rows: Sequence[tuple[float, float]]) -> tuple[Array, Array]:
    table = np.array(rows)
    return table[:, 0], table[:, 1]


def value(asked: Pairs, places: Sequence[int], ours: Array, theirs: Array) -> dict[str, Any]:
    """How alike A's and B's values ``[n]`` are; changes are B minus A."""
    change = theirs - ours
    largest = int(np.argmax(np.abs(change)))
    return {
        **correlations(ours, theirs),
        "mean_change": float(change.mean()),
        "mean_absolute_change": float(np.abs(change).mean()),
        "std_a": float(ours.std()),
        "largest": {
            "change": float(change[largest]),
            "a": float(ours[largest]),
            "b": float(theirs[largest]),
            **_shown(asked, places[largest]),
        },
    }


def _shown(asked: Pairs, index: int) -> dict[str, Any]:
    pair = asked.pairs[index]
    return {
        "index": index,
        "place": asked.places[index],
        "pair": pair_key(pair, "never"),
        "prompt": str(pair["prompt"])[:MOST_TEXT],
        "response": str(pair["response"])[:MOST_TEXT],
    }


def turned(asked: Pairs, ours: Sequence[Result], theirs: Sequence[Result]) -> dict[str, Any]:
    """Preferences whose outcome differs between A and B; ``flipped`` are strict reversals."""
    a, b = [reward(result) for result in ours], [reward(result) for result in theirs]
    outcomes = [
        (judge(a[i], a[i + 1]), judge(b[i], b[i + 1])) for i in range(0, len(asked.pairs), 2)
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
                "place": asked.places[2 * row].removesuffix(" chosen"),
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


def _preference_sections(found: Mapping[str, Any]) -> list[str]:
    sides = [
        [side.upper(), report.percent(found[side]["accuracy"]), found[side]["ties"],
         found[side]["failed"]]
        for side in ("a", "b")
    ]  # fmt: skip
    rows = [
        [one["place"], one["margin_a"], one["margin_b"]]
        for one in found["flipped_rows"][:MOST_SHOWN]
    ]
    changed = ", ".join(f"{n} {what}" for what, n in found["changed"].items()) or "none"
    parts = [
        f"**{found['flipped']} preferences flipped** ({report.percent(found['flipped_share'])}%)."
        f" Outcomes that changed: {changed}.",
        report.table(["server", "accuracy", "ties", "failed"], sides),
    ]
    if rows:
        parts.append(report.table(["flipped", "margin A", "margin B"], rows))
    return parts
