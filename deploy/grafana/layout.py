"""Rows, variables and boards in Grafana's JSON model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from deploy.grafana.panels import DATASOURCE, GRID, Json

TAG = "fivescore"
SCHEMA = 39
"""Version of the JSON model that Grafana 10.4 and later read without conversion."""


def row(title: str, *panels: Json, collapsed: bool = False, repeat: str = "") -> Json:
    """A heading with its panels; repeated for each value of the variable ``repeat``."""
    heading: Json = {"type": "row", "title": title, "collapsed": collapsed, "panels": list(panels)}
    return {**heading, "repeat": repeat} if repeat else heading


def variable(name: str, label: str, values: str, *, several: bool = True) -> Json:
    """A variable with a label's values (``label_values(...)``); ``several`` allows many at once."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "query": {"query": values, "refId": f"variable-{name}"},
        "refresh": 2,
        "sort": 1,
        "multi": several,
        "includeAll": several,
        "current": {"text": ["All"], "value": ["$__all"]} if several else {},
    }


def choice(name: str, label: str, values: Sequence[str], default: str, description: str) -> Json:
    """A variable with fixed values."""
    return {
        "type": "custom",
        "name": name,
        "label": label,
        "description": description,
        "query": ",".join(values),
        "options": [{"text": v, "value": v, "selected": v == default} for v in values],
        "current": {"text": default, "value": default},
        "multi": False,
        "includeAll": False,
    }


def source() -> Json:
    """The variable for the Prometheus to query."""
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Prometheus",
        "query": "prometheus",
        "current": {"text": "Prometheus", "value": "prometheus"},
    }


def board(uid: str, title: str, description: str, variables: Sequence[Json],
          rows: Sequence[Json]) -> Json:  # fmt: skip
    """A whole dashboard."""
    links = {
        "type": "dashboards",
        "title": "fivescore",
        "tags": [TAG],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "The other board, with the same time and choices",
        "url": "",
    }
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": [TAG],
        "schemaVersion": SCHEMA,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [links],
        "templating": {"list": [source(), *variables]},
        "panels": _placed(rows),
    }


def _placed(rows: Sequence[Json]) -> list[Json]:
    """Panels placed from left to right, row after row; only a collapsed row contains its own."""
    placed: list[Json] = []
    ids = count(1)
    top = 0
    for heading in rows:
        number = next(ids)
        inner, bottom = _flowed(heading["panels"], top + 1, ids)
        collapsed = heading["collapsed"]
        place = {"id": number, "gridPos": _at(0, top, GRID, 1)}
        placed.append({**heading, "panels": inner if collapsed else [], **place})
        placed += [] if collapsed else inner
        top = top + 1 if collapsed else bottom
    return placed


def _flowed(panels: Sequence[Json], top: int, ids: Iterator[int]) -> tuple[list[Json], int]:
    """Panels with ids and places from line ``top`` on, and the first line below them."""
    placed: list[Json] = []
    left = tallest = 0
    for panel in panels:
        width, height = panel["gridPos"]["w"], panel["gridPos"]["h"]
        if left + width > GRID:
            left, top, tallest = 0, top + tallest, 0
        placed.append({**panel, "id": next(ids), "gridPos": _at(left, top, width, height)})
        left, tallest = left + width, max(tallest, height)
    return placed, top + tallest


def _at(x: int, y: int, w: int, h: int) -> Json:
    return {"x": x, "y": y, "w": w, "h": h}
