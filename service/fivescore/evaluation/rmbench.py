"""RM-Bench (arXiv 2410.16184): right content against more pleasing style, in a 3 x 3 matrix."""

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
from fivescore.evaluation.shapes import text, usable
from fivescore.evaluation.tally import Outcome, judge, reward

STYLES = ("concise", "detailed", "detailed, markdown")
"""The styles of the three chosen and the three rejected responses, in the data's order."""
DOMAINS = ("chat", "math", "code", "safety")
PARTS = {"safety-refuse": "safety", "safety-response": "safety"}
"""The score of safety is the mean of these two."""
LEVELS = ("easy", "normal", "hard")
OUTCOMES: tuple[Outcome, ...] = ("right", "wrong", "tie", "failed")


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt with responses ``[3]`` by style."""

    domain: str
    prompt: str
    chosen: list[str]
    rejected: list[str]

    def pairs(self) -> list[dict[str, Any]]:
        texts = [*self.chosen, *self.rejected]
        return [{"prompt": self.prompt, "response": text} for text in texts]


def items(sources: Sequence[Source]) -> list[Item]:
    """All rows; the domain is the row's ``domain``, or else what its file's name says.

    Raises:
        ConfigurationError: no row can be used.
    """
    wanted = "rows of RM-Bench (a prompt with three chosen and three rejected responses)"
    return usable(sources, _item, wanted)


def _item(source: Source, row: Row) -> Item:
    fields = row.fields()
    responses = [_responses(fields, name) for name in ("chosen", "rejected")]
    domain = str(fields.get("domain") or domain_of(source.name))
    return Item(domain, text(fields, "prompt"), *responses)


def _responses(fields: dict[str, Any], name: str) -> list[str]:
    found = fields.get(name)
    if not isinstance(found, list) or [type(one) for one in found] != [str] * len(STYLES):
        raise BadRow(f"{name} is not a list of three texts")
    return found


def domain_of(name: str) -> str:
    """The domain in a file's name, such as ``rmbench-chat_filtered``; else the name itself."""
    for domain in (*PARTS, *DOMAINS):
        if domain in name.lower():
            return domain
    return name


def run(options: Options) -> list[Path]:
    """Score six responses a row, compare each chosen with each rejected, write the report."""
    sources = options.sources()
    found = items(sources)
    with Session(options) as session:
        results = session.score([pair for item in found for pair in item.pairs()])
        rewards = [reward(result) for result in results]
        measured = measure([item.domain for item in found], rewards)
        title = f"RM-Bench: {session.served.model}"
        figure = plots.rmbench(title, measured)
        return report.write(
            "rmbench", title, options, {"": session}, sources, measured, markdown(measured), figure
        )


def measure(domains: Sequence[str], rewards: Sequence[float | None]) -> dict[str, Any]:
    """The result for the report.

    Args:
        domains: of each row, ``[n]``.
        rewards: ``[n * 6]``: of each row its three chosen and then its three rejected responses,
            by style; None is a failure.
    """
    outcomes = [comparisons(rewards[i * 6 : i * 6 + 6]) for i in range(len(domains))]
    parts = {
        domain: _part([found for name, found in zip(domains, outcomes, strict=True)
                       if name == domain])
        for domain in dict.fromkeys(domains)
    }  # fmt: skip
    matrices = {domain: np.array(part["matrix"]) for domain, part in parts.items()}
    grouped: dict[str, list[Array]] = {}
    for domain, matrix in matrices.items():
        grouped.setdefault(PARTS.get(domain, domain), []).append(matrix)
    scores = {domain: levels(np.mean(found, axis=0)) for domain, found in grouped.items()}
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


def _part(found: Sequence[list[list[Outcome]]]) -> dict[str, Any]:
    table = np.array(found)
    matrix = (table == "right").mean(axis=0)
    counts = {name: int((table == name).sum()) for name in OUTCOMES}
    return {"rows": len(found), "comparisons": counts, "matrix": matrix.tolist(), **levels(matrix)}


def levels(matrix: Array) -> dict[str, float]:
    """A matrix of accuracies ``[chosen style, rejected style]`` to its three levels and their mean.

    Hard: the rejected response has the more pleasing style. Easy: the chosen one has it.
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
        "Hard: the rejected response has the more pleasing style; easy: the chosen one has it."
        " A tie is wrong, and so is a comparison with a response that could not be scored.",
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
