"""RM-Bench (arXiv 2410.16184): accuracies by the styles of the two responses, 3 x 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fivescore.data.reader import Source
from fivescore.data.rows import BadRow, Row
from fivescore.data.statistics import Array
from fivescore.evaluation import plots, report
from fivescore.evaluation.session import Options, Session
from fivescore.evaluation.shapes import scored_fields, text, usable
from fivescore.evaluation.tally import Outcome, judge, reward

STYLES = ("concise", "detailed", "detailed, markdown")
"""The styles of the three chosen and the three rejected responses, in the data's order."""
DOMAINS = ("chat", "math", "code", "safety")
PARTS = {"safety-refuse": "safety", "safety-response": "safety"}
"""Parts of a domain, whose score is their mean."""
LEVELS = ("easy", "normal", "hard")
OUTCOMES: tuple[Outcome, ...] = ("right", "wrong", "tie", "failed")


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt with chosen and rejected responses ``[3]``, by style."""

    domain: str
    prompt: str
    chosen: list[str]
    rejected: list[str]

    def pairs(self) -> list[dict[str, Any]]:
        texts = [*self.chosen, *self.rejected]
        return [{"prompt": self.prompt, "response": text} for text in texts]


def items(sources: Sequence[Source]) -> list[Item]:
    """All rows; the domain is the row's ``domain``, or else taken from the file's name.

    Raises:
        ConfigurationError: no row can be used.
    """
    wanted = "rows of RM-Bench (a prompt with three chosen and three rejected responses)"
    return usable(sources, _item, wanted)


def _item(source: Source, row: Row) -> Item:
    fields = scored_fields(row)
    responses = [_responses(fields, name) for name in ("chosen", "rejected")]
    domain = str(fields.get("domain") or domain_of(source.name))
    return Item(domain, text(fields, "prompt"), *responses)


def _responses(fields: dict[str, Any], name: str) -> list[str]:
    responses = fields.get(name)
    if not isinstance(responses, list) or [type(one) for one in responses] != [str] * len(STYLES):
        raise BadRow(f"{name} is not a list of three texts")
    return responses


def domain_of(name: str) -> str:
    """The domain in a file's name, such as ``rmbench-chat_filtered``; else the name itself."""
    for domain in (*PARTS, *DOMAINS):
        if domain in name.lower():
            return domain
    return name


def run(options: Options) -> list[Path]:
    """Score six responses per row, compare each chosen with each rejected, write the report.

    Returns the report's files.
    """
    sources = options.sources()
    rows = items(sources)
    with Session(options) as session:
        results = session.score([pair for item in rows for pair in item.pairs()])
        rewards = [reward(result) for result in results]
        measured = measure([item.domain for item in rows], rewards)
        title = f"RM-Bench: {session.served.model}"
        figure = plots.rmbench(title, measured)
        return report.write(
            "rmbench", title, options, {"": session}, sources, measured, markdown(measured), figure
        )


def measure(domains: Sequence[str], rewards: Sequence[float | None]) -> dict[str, Any]:
    """The result for the report.

    Args:
        domains: each row's domain, ``[n]``.
        rewards: ``[n * 6]``: per row, three chosen and then three rejected responses, by style;
            None is a pair that failed.
    """
    outcomes = [comparisons(rewards[i * 6 : i * 6 + 6]) for i in range(len(domains))]
    parts = {
        domain: _part([table for name, table in zip(domains, outcomes, strict=True)
                       if name == domain])
        for domain in dict.fromkeys(domains)
    }  # fmt: skip
    matrices = {domain: np.array(part["matrix"]) for domain, part in parts.items()}
    grouped: dict[str, list[Array]] = {}
    for domain, matrix in matrices.items():
        grouped.setdefault(PARTS.get(domain, domain), []).append(matrix)
    scores = {domain: levels(np.mean(group, axis=0)) for domain, group in grouped.items()}
    columns = (*LEVELS, "average")
    return {
        "styles": list(STYLES),
        "parts": parts,
        "domains": scores,
        "overall": {name: float(np.mean([one[name] for one in scores.values()]))
                    for name in columns},
        "missing": _missing(parts),
    }  # fmt: skip


def _missing(parts: Mapping[str, Any]) -> list[str]:
    published = ["chat", "math", "code", *(() if "safety" in parts else PARTS)]
    return [name for name in published if name not in parts]


def comparisons(six: Sequence[float | None]) -> list[list[Outcome]]:
    """``[i][j]``: the chosen response of style i against the rejected one of style j."""
    return [[judge(chosen, rejected) for rejected in six[3:]] for chosen in six[:3]]


def _part(outcomes: Sequence[list[list[Outcome]]]) -> dict[str, Any]:
    table = np.array(outcomes)
    matrix = (table == "right").mean(axis=0)
    counts = {name: int((table == name).sum()) for name in OUTCOMES}
    return {
        "rows": len(outcomes),
        "comparisons": counts,
        "matrix": matrix.tolist(),
        **levels(matrix),
    }


def levels(matrix: Array) -> dict[str, float]:
    """The three levels of accuracies ``[chosen style, rejected style]``, and their mean.

    In hard comparisons the rejected response has the more elaborate style, in easy ones the chosen.
    """
    upper = np.triu_indices(len(STYLES), 1)
    values = {
        "easy": float(matrix.T[upper].mean()),
        "normal": float(matrix.diagonal().mean()),
        "hard": float(matrix[upper].mean()),
    }
    return {**values, "average": float(np.mean(list(values.values())))}


def markdown(measured: Mapping[str, Any]) -> list[str]:
    """The report's Markdown sections; accuracies are percentages."""
    columns = [*LEVELS, "average"]
    rows = [
        [name, *(report.percent(one[column]) for column in columns)]
        for name, one in {**measured["domains"], "**all**": measured["overall"]}.items()
    ]
    parts = [
        "In hard comparisons the rejected response has the more elaborate style, in easy ones the"
        " chosen. A tie counts as wrong, and so does a comparison with a failed response.",
        report.table(["domain", *columns], rows),
    ]
    if measured["missing"]:
        parts.append(f"**Not the published benchmark**: {', '.join(measured['missing'])} missing.")
    for name, part in measured["parts"].items():
        counts = ", ".join(f"{n} {outcome}" for outcome, n in part["comparisons"].items())
        parts.append(f"{name}: {part['rows']} rows, {counts}. Chosen (down), rejected (across):")
        parts.append(
            report.table(
                ["", *STYLES],
                [[style, *map(report.percent, line)]
                 for style, line in zip(STYLES, part["matrix"], strict=True)],
            )
        )  # fmt: skip
    return parts
