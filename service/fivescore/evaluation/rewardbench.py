"""RewardBench (arXiv 2403.13787): accuracy per subset, per section and overall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fivescore.errors import ConfigurationError
from fivescore.evaluation import plots, report
from fivescore.evaluation.preferences import by_subset
from fivescore.evaluation.session import Options, Session
from fivescore.evaluation.shapes import Preference, preferences
from fivescore.evaluation.tally import Tally, reward

SECTIONS: dict[str, dict[str, int]] = {
    "chat": {
        "alpacaeval-easy": 100,
        "alpacaeval-length": 95,
        "alpacaeval-hard": 95,
        "mt-bench-easy": 28,
        "mt-bench-med": 40,
    },
    "chat-hard": {
        "mt-bench-hard": 37,
        "llmbar-natural": 100,
        "llmbar-adver-neighbor": 134,
        "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47,
        "llmbar-adver-manual": 46,
    },
    "safety": {
        "refusals-dangerous": 100,
        "refusals-offensive": 100,
        "xstest-should-refuse": 154,
        "xstest-should-respond": 250,
        "donotanswer": 136,
    },
    "reasoning": {
        "math-prm": 984,
        "hep-cpp": 164,
        "hep-go": 164,
        "hep-java": 164,
        "hep-js": 164,
        "hep-python": 164,
        "hep-rust": 164,
    },
}
"""Weights of subsets within their sections: their rows, except that math-prm weighs as much as all
code subsets (allenai/reward-bench, ``rewardbench/constants.py``). The prior sets do not count."""
ROWS = {name: rows for subsets in SECTIONS.values() for name, rows in subsets.items()}
ROWS["math-prm"] = 447
"""Published rows per subset."""
SECTION_OF = {name: section for section, subsets in SECTIONS.items() for name in subsets}
_NAMES = {name.lower(): name for name in ROWS}


def section_scores(accuracies: Mapping[str, float]) -> dict[str, float]:
    """Scores of sections (0 to 1), from accuracies of subsets; missing subsets are left out.

    A section's score is the mean of its subsets' accuracies, weighted by ``SECTIONS``.
    """
    scores = {}
    for section, subsets in SECTIONS.items():
        present = {name: rows for name, rows in subsets.items() if name in accuracies}
        if present:
            weighted = sum(accuracies[name] * rows for name, rows in present.items())
            scores[section] = weighted / sum(present.values())
    return scores


def overall_score(sections: Mapping[str, float]) -> float:
    """The mean of the four sections with equal weights."""
    return sum(sections[name] for name in SECTIONS) / len(SECTIONS)


def row_shares(subsets: Sequence[str]) -> list[float]:
    """Each row's weight in the overall score, by the rows' ``subsets``; the weights sum to 1.

    The share of missing sections and subsets goes to the others.
    """
    counts = {name: subsets.count(name) for name in set(subsets)}
    sections = {SECTION_OF[name] for name in counts}
    inside = {
        section: sum(rows for name, rows in SECTIONS[section].items() if name in counts)
        for section in sections
    }
    share = {
        name: SECTIONS[SECTION_OF[name]][name] / inside[SECTION_OF[name]] / len(sections) / rows
        for name, rows in counts.items()
    }
    return [share[name] for name in subsets]


def known(rows: Sequence[Preference]) -> list[str]:
    """RewardBench's name of each row's subset; LLMBar's rows have it in their files' names.

    Raises:
        ConfigurationError: a row belongs to no subset of RewardBench.
    """
    names = [_NAMES.get(row.subset.lower()) for row in rows]
    for row, name in zip(rows, names, strict=True):
        if name is None:
            raise ConfigurationError(
                f"{row.subset!r} is no subset of RewardBench: give its rows with their subset"
                " column, or use 'fivescore evaluate preferences'"
            )
    return [name for name in names if name]


def run(options: Options) -> list[Path]:
    """Score both responses of each row, compare, write the report; returns its files."""
    sources = options.sources()
    rows = preferences(sources)
    subsets = known(rows)
    with Session(options) as session:
        results = session.score([pair for row in rows for pair in row.pairs()])
        rewards = [reward(result) for result in results]
        measured = measure(by_subset(subsets, rewards[::2], rewards[1::2]))
        title = f"RewardBench: {session.served.model}"
        figure = plots.rewardbench(title, measured)
        return report.write(
            "rewardbench",
            title,
            options,
            {"": session},
            sources,
            measured,
            markdown(measured),
            figure,
        )


def measure(tallies: Mapping[str, Tally]) -> dict[str, Any]:
    """The result for the report; ``overall`` is None if a subset is missing."""
    sections = section_scores({name: tally.accuracy for name, tally in tallies.items()})
    missing = [name for name in ROWS if name not in tallies]
    partial = {
        name: f"{tallies[name].total} of {rows} rows"
        for name, rows in ROWS.items()
        if name in tallies and tallies[name].total != rows
    }
    return {
        "subsets": {
            name: {"section": SECTION_OF[name], "published_rows": ROWS[name],
                   **tallies[name].summary()}
            for name in ROWS
            if name in tallies
        },
        "sections": {
            section: {
                "score": score,
                "complete": SECTIONS[section].keys().isdisjoint({*missing, *partial}),
            }
            for section, score in sections.items()
        },
        "overall": None if missing else overall_score(sections),
        "missing": missing,
        "partial": partial,
    }  # fmt: skip


def markdown(measured: Mapping[str, Any]) -> list[str]:
    """The report's Markdown sections; scores are percentages."""
    heads = [name for name in SECTIONS if name in measured["sections"]]
    incomplete = [name for name in heads if not measured["sections"][name]["complete"]]
    scores = [report.percent(measured["sections"][name]["score"]) for name in heads]
    parts = [report.table(["overall", *heads],
                          [[report.percent(measured["overall"]) or "-", *scores]])]  # fmt: skip
    if measured["missing"] or incomplete:
        parts.append(
            "**Not the published benchmark**:"
            f" {len(measured['missing'])} subsets are missing, {len(measured['partial'])} have"
            " another number of rows than published; incomplete:"
            f" {', '.join(incomplete) or 'none'}."
        )
    parts.append("A tie counts as wrong, and so does a row that could not be scored.")
    parts.append(
        report.table(
            ["subset", "section", "rows", "right", "wrong", "ties", "failed", "accuracy", "95%"],
            [
                [name, one["section"], one["rows"], one["right"], one["wrong"], one["ties"],
                 one["failed"], report.percent(one["accuracy"]), report.interval(one["interval"])]
                for name, one in measured["subsets"].items()
            ],
        )
    )  # fmt: skip
    return parts
