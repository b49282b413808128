"""Panels in Grafana's JSON model."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
GRID = 24
"""Columns of Grafana's grid."""
NO_TRAFFIC = "no traffic"
"""What a panel without data shows."""
GOOD, WARNING, BAD, PLAIN = "green", "orange", "red", "blue"


def query(expression: str, legend: str = "__auto", **more: Any) -> Json:
    """One query of a panel."""
    return {"expr": expression, "legendFormat": legend, **more}


def now(expression: str, legend: str = "__auto") -> Json:
    """A query of the latest value alone, for a table."""
    return query(expression, legend, instant=True, range=False, format="table")


def steps(*bounds: tuple[float | None, str]) -> Json:
    """The colour from each value on; None starts the lowest range."""
    return {"mode": "absolute", "steps": [{"value": v, "color": c} for v, c in bounds]}


NEUTRAL = steps((None, PLAIN))


def graph(
    title: str,
    description: str,
    *queries: Json,
    unit: str = "short",
    width: int = 8,
    stacked: bool = False,
    limit: float | None = None,
    top: float | None = None,
    bottom: float | None = 0,
    empty: str = NO_TRAFFIC,
) -> Json:
    """Lines over time; ``limit`` is drawn as a dashed line, ``top`` and ``bottom`` fix the axis."""
    custom: Json = {"fillOpacity": 30 if stacked else 5, "showPoints": "auto", "spanNulls": False}
    if stacked:
        custom["stacking"] = {"mode": "normal", "group": "A"}
    defaults: Json = {"unit": unit, "noValue": empty, "custom": custom}
    if limit is not None:
        custom["thresholdsStyle"] = {"mode": "dashed"}
        defaults["thresholds"] = steps((None, "transparent"), (limit, BAD))
    defaults |= {k: v for k, v in (("min", bottom), ("max", top)) if v is not None}
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return _panel("timeseries", title, description, queries, width, 8, defaults, options)


def stat(
    title: str,
    description: str,
    expression: str,
    *,
    unit: str = "short",
    colours: Json = NEUTRAL,
    empty: str = NO_TRAFFIC,
    width: int = 4,
) -> Json:
    """The latest value as a number."""
    defaults = {"unit": unit, "noValue": empty, "thresholds": colours}
    options = {
        "colorMode": "value",
        "graphMode": "area",
        "textMode": "value",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    return _panel("stat", title, description, [query(expression)], width, 4, defaults, options)


def heatmap(title: str, description: str, expression: str, *, width: int = 12) -> Json:
    """A histogram's buckets over time."""
    options = {
        "calculate": False,
        "color": {"mode": "scheme", "scheme": "Blues", "scale": "exponential", "exponent": 0.5,
                  "steps": 64, "reverse": False},
        "cellGap": 1,
        "filterValues": {"le": 1e-9},
        "yAxis": {"axisPlacement": "left"},
        "tooltip": {"mode": "single", "yHistogram": True},
        "legend": {"show": True},
    }  # fmt: skip
    queries = [query(expression, "{{le}}", format="heatmap")]
    return _panel("heatmap", title, description, queries, width, 8, {}, options)


def states(title: str, description: str, expression: str, names: Mapping[int, tuple[str, str]],
           *, width: int = 12) -> Json:  # fmt: skip
    """The state of each instance over time; ``names`` maps values to text and colour."""
    mapped = {str(v): {"text": text, "color": colour} for v, (text, colour) in names.items()}
    defaults = {"mappings": [{"type": "value", "options": mapped}], "noValue": "no instance"}
    options = {"mergeValues": True, "showValue": "auto", "rowHeight": 0.8}
    queries = [query(expression, "{{instance}}")]
    return _panel("state-timeline", title, description, queries, width, 6, defaults, options)


def table(title: str, description: str, expression: str, columns: Sequence[str], *,
          empty: str, width: int = 12) -> Json:  # fmt: skip
    """A table with the labels of the current series."""
    transformations = [
        {"id": "filterFieldsByName", "options": {"include": {"names": list(columns)}}},
        {"id": "organize", "options": {"indexByName": {n: i for i, n in enumerate(columns)}}},
    ]
    panel = _panel("table", title, description, [now(expression)], width, 6, {"noValue": empty},
                   {"showHeader": True})  # fmt: skip
    return {**panel, "transformations": transformations}


def text(title: str, markdown: str, *, width: int = GRID, height: int = 4) -> Json:
    """A panel of Markdown text."""
    return {
        "type": "text",
        "title": title,
        "options": {"mode": "markdown", "content": markdown},
        "gridPos": {"w": width, "h": height},
    }


def _panel(
    kind: str,
    title: str,
    description: str,
    queries: Sequence[Json],
    width: int,
    height: int,
    defaults: Json,
    options: Json,
) -> Json:
    named = zip(string.ascii_uppercase, queries, strict=False)
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "targets": [{"refId": ref, "datasource": DATASOURCE, **one} for ref, one in named],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "gridPos": {"w": width, "h": height},
    }
