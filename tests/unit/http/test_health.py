"""Probes, metrics, and what the service runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fivescore import __version__
from fivescore.settings import DEMO
from fivescore.telemetry.metrics import OUTCOMES, STATES
from tests.integration.service import Service, serving, strict


async def test_the_manifest_in_force_and_the_versions_are_shown(service: Service) -> None:
    await service.until(lambda: service.scorer.service.digest is not None)
    shown = strict(await service.http.get("/manifest"))
    written = json.loads((Path(DEMO) / "reward.json").read_text())
    del written["proof"]  # a megabyte perhaps; whether it holds is shown instead
    assert written.pop("prompt").items() <= shown["prompt"].items()
    assert {name: shown[name] for name in written} == written
    assert shown["proved"] is False, "the fake engine's scores are made up"
    assert len(shown["digest"]) == 64
    label = f'digest="{shown["digest"][:12]}"'
    assert label in (await service.http.get("/metrics")).text
    versions = strict(await service.http.get("/version"))
    assert versions == {"version": __version__, "engine": "fake"}


async def test_the_token_limit_in_force_is_shown_with_the_manifest() -> None:
    async with serving(max_tokens=100, name="judge") as service:
        assert strict(await service.http.get("/manifest"))["max_tokens"] == 100
        models = strict(await service.http.get("/v1/models"))["data"]
        assert [(model["id"], model["max_model_len"]) for model in models] == [
            ("judge", 100),
            ("judge-scalar", 100),
        ]


async def test_the_model_is_listed_in_openais_form(service: Service) -> None:
    body = strict(await service.http.get("/v1/models"))
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ["fivescore-demo", "fivescore-demo-scalar"]
    for model in body["data"]:
        assert model["object"] == "model"
        assert isinstance(model["created"], int)
        assert model["owned_by"]


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
async def test_a_ready_service_is_healthy_by_get_and_head(service: Service, path: str) -> None:
    response = await service.http.get(path)
    assert (response.status_code, strict(response)) == (200, {"status": "ready"})
    assert (await service.http.head(path)).status_code == 200


async def test_the_metrics_parse_and_every_label_is_there_from_the_start(service: Service) -> None:
    response = await service.http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    for outcome in OUTCOMES:
        assert samples["fivescore_pairs_total", outcome] == 0
    for state in STATES:
        assert samples["fivescore_engine_state", state] == (state == "ready")
    assert samples["fivescore_inflight_limit", "pairs"] == 65_536
    assert samples[("fivescore_inflight_pairs",)] == 0
    assert samples[("fivescore_model_load_seconds",)] > 0
    assert ("process_cpu_seconds_total",) in samples
