"""Writes the dashboards: ``python -m deploy.grafana.generate [--check]``.

Edit ``service.py`` and ``model.py``, never the JSON. The command fails, and writes nothing, when a
panel, a variable, an alert or a recording rule queries a metric, a label or a label's value that no
code defines.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploy.grafana.metrics import faults, known, rules
from deploy.grafana.model import model
from deploy.grafana.panels import Json
from deploy.grafana.service import service

FOLDER = Path(__file__).parent / "dashboards"


def boards() -> dict[str, Json]:
    """All dashboards by file name."""
    return {"service.json": service(rules()), "model.json": model()}


def queries(board: Json) -> Iterator[tuple[str, str]]:
    """The place and the text of each expression in a board."""
    for panel in board["panels"]:
        for one in (panel, *panel.get("panels", ())):
            for target in one.get("targets", ()):
                yield f"panel {one['title']!r}, query {target['refId']}", target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']!r}", _series(variable["query"]["query"])


def _series(values: str) -> str:
    """The series whose label ``label_values(series, label)`` lists."""
    return values.removeprefix("label_values(").removesuffix(")").rsplit(",", 1)[0]


def mistakes(dashboards: dict[str, Json]) -> list[str]:
    """A line for each query of something that does not exist, with its place."""
    names = known()
    expressions = [
        (f"{file}: {place}", expression)
        for file, board in dashboards.items()
        for place, expression in queries(board)
    ]
    expressions += [(f"rule {rule.name}", rule.expression) for rule in rules()]
    return [f"{place}: {fault}" for place, text in expressions for fault in faults(text, names)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or print which are not up to date; returns the exit status."""
    parser = argparse.ArgumentParser(description="Writes Grafana's dashboards.")
    parser.add_argument("--check", action="store_true", help="only print what is not up to date")
    check: bool = parser.parse_args(arguments).check
    dashboards = boards()
    if wrong := mistakes(dashboards):
        print("\n".join(wrong), file=sys.stderr)
        return 1
    stale = 0
    for name, board in dashboards.items():
        path, text = FOLDER / name, json.dumps(board, indent=1, ensure_ascii=False) + "\n"
        if path.exists() and path.read_text() == text:
            continue
        stale += 1
        if check:
            print(f"{path} is not up to date: python -m deploy.grafana.generate", file=sys.stderr)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
