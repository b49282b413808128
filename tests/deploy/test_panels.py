"""Every panel's and every alert's PromQL has data: a real service, traffic and Prometheus.

``TRAFFIC_SECONDS=180 pytest tests/deploy/test_panels.py`` for more than the usual twenty.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deploy.expressions import (
    Expression,
    alerts,
    panels,
    recordings,
    without_bounds,
    without_defaults,
)
from tests.deploy.prometheus import Prometheus, prometheus
from tests.deploy.traffic import large, mixed, traffic
from tests.integration.process import server
from tests.tools import tool

TRAFFIC_SECONDS = float(os.environ.get("TRAFFIC_SECONDS", "20"))
FAULTS = ("--max-inflight-pairs", "64", "--engine.latency-seconds", "0.05",
          "--engine.fail-every", "41", "--engine.nan-every", "37")  # fmt: skip
PANELS = panels()
OURS = [panel for panel in PANELS if panel.source == "fivescore"]
KEY = "a-key-of-this-test"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped a busy service for a while, and still does."""
    tool("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    with server("--api-key", KEY, *FAULTS) as process:
        url = process.ready().url
        with (
            prometheus(folder, url.removeprefix("http://"), KEY) as found,
            traffic(url, mixed, large, large, large, key=KEY),
        ):
            time.sleep(TRAFFIC_SECONDS)
            yield found


def _ask(found: Prometheus, queries: list[str]) -> None:
    for one in queries:
        found.wait_for(one)


def test_without_traffic_no_panel_shows_nan(tmp_path: Path) -> None:
    """A service that has just started: numbers or nothing, never NaN."""
    tool("prometheus")
    with (
        server() as process,
        prometheus(tmp_path, process.ready().url.removeprefix("http://")) as found,
    ):
        found.wait_for("rate(fivescore_pairs_total[5s])")
        httpx.post(f"{process.url}/score", json={"pairs": []}, trust_env=False)
        for panel in OURS:
            assert all(value == value for value in found.values(panel.text)), panel


@pytest.mark.parametrize("panel", OURS, ids=lambda panel: panel.place)
def test_a_panel_has_data(watched: Prometheus, panel: Expression) -> None:
    _ask(watched, without_defaults(panel.text))


@pytest.mark.parametrize("rule", recordings(), ids=lambda rule: rule.place)
def test_a_recording_rule_has_data(watched: Prometheus, rule: Expression) -> None:
    _ask(watched, [*without_defaults(rule.text), rule.place])


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.place)
def test_what_an_alert_looks_at_has_data(watched: Prometheus, alert: Expression) -> None:
    _ask(watched, without_bounds(alert.text))


def test_the_faults_reached_the_metrics(watched: Prometheus) -> None:
    """The traffic is what the panels were asked about: each fault is more than zero."""
    for faulty in (
        'fivescore_http_request_duration_seconds_count{status="429"}',
        'fivescore_http_request_duration_seconds_count{status="500"}',
        'fivescore_http_request_duration_seconds_count{route="unknown",status="404"}',
        'fivescore_pairs_total{outcome="too_long"}',
        'fivescore_pairs_total{outcome="invalid_pair"}',
        'fivescore_pairs_total{outcome="engine_error"}',
        'fivescore_pairs_total{outcome="non_finite"}',
        'fivescore_admission_rejections_total{reason="pairs"}',
        "fivescore_truncated_pairs_total",
        'ALERTS{alertname="FivescoreNonFinite",alertstate="firing"}',
    ):
        watched.wait_for(f"{faulty} > 0")


def test_a_name_that_is_wrong_has_no_data(watched: Prometheus) -> None:
    """The check itself finds what ``or vector(0)`` hides."""
    hidden = without_defaults(
        'sum(rate(fivescore_pairs_total{outcome="timeout"}[10s])) or vector(0)'
    )
    assert [bool(watched.values(one)) for one in hidden] == [True, False]


def test_vllm_and_dcgm_are_looked_at_elsewhere() -> None:
    """``tests/e2e/test_monitoring.py`` asks vLLM's; DCGM's are parsed, for want of a GPU."""
    elsewhere = {panel.source for panel in PANELS} - {"fivescore"}
    assert elsewhere == {"vllm", "dcgm"}
