"""The panels of vLLM's own metrics have data: a real engine, and a real Prometheus."""

from __future__ import annotations

from pathlib import Path

from tests.deploy.expressions import panels, without_defaults
from tests.deploy.prometheus import prometheus
from tests.deploy.traffic import pairs, traffic
from tests.e2e.server import Server
from tests.tools import tool

VLLM = [panel for panel in panels() if panel.source == "vllm"]


def test_vllms_panels_have_data(demo: Server, tmp_path: Path) -> None:
    tool("prometheus")
    assert VLLM
    with (
        prometheus(tmp_path, demo.url.removeprefix("http://")) as found,
        traffic(
            demo.url, lambda http, number: http.post("/score", json={"pairs": pairs(number, 4)})
        ),
    ):
        for panel in VLLM:
            for query in without_defaults(panel.text):
                found.wait_for(query)
