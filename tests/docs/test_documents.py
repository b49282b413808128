"""The documents name every package, setting, route, error and metric, and none that is gone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from starlette.types import Message, Receive, Scope, Send

from fivescore.engine.fake import FakeOptions
from fivescore.http.app import ROUTES
from fivescore.http.context import RequestContext
from fivescore.http.request import summarise, trace_of
from fivescore.http.routes import RequestOptions
from fivescore.model.manifest import PRESETS, Manifest
from fivescore.settings import Settings
from fivescore.telemetry.logging import TEXT_CHARACTERS, TEXT_PAIRS, Json
from fivescore.telemetry.metrics import LIMITS, REJECTIONS, STATES, Metrics
from fivescore.telemetry.trace import STAGES
from fivescore.types import ModelInfo, Pair, Score
from tests.unit.test_errors import LEAVES

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
README = (ROOT / "README.md").read_text()
NAMES = [
    *(f"--{name.replace('_', '-')}" for name in Settings.model_fields if name != "engine"),
    *(name.replace("_", "-") for name in FakeOptions.model_fields),
    *(*RequestOptions.model_fields, *Pair.model_fields, *PRESETS),
    *(*STAGES, *REJECTIONS, *STATES, *LIMITS),
]
"""Settings, the fake engine's options, a request's fields, presets, and values of labels."""


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_interface_is_documented(name: str) -> None:
    assert f"`{name}`" in REFERENCE


@pytest.mark.parametrize("name", [*(path for _, path, _ in ROUTES), *(e.code for e in LEAVES)])
def test_every_route_and_error_is_documented(name: str) -> None:
    assert name in REFERENCE


def test_architecture_names_every_package_and_only_what_exists() -> None:
    package = ROOT / "service" / "fivescore"
    rooms = {file.parent.relative_to(package) for file in package.rglob("*.py")} - {Path()}
    named = [Path(name) for name in re.findall(r"`([\w.-][\w./-]*/[\w./-]*)`", ARCHITECTURE)]
    folders = {path.parent if path.suffix else path for path in named}
    assert rooms <= {
        path.relative_to("service/fivescore") if path.is_relative_to("service/fivescore") else path
        for path in folders
    }
    bases = (ROOT, package)
    assert not [path for path in named if not any((base / path).exists() for base in bases)]


def test_every_flag_in_the_reference_exists() -> None:
    flags = set(re.findall(r"^\| `--([a-z-]+)`", REFERENCE, re.MULTILINE))
    assert flags <= {name.replace("_", "-") for name in Settings.model_fields}


def test_every_metric_is_documented_and_no_other() -> None:
    registered = {
        f"{family.name}{'_total' if family.type == 'counter' else ''}"
        f"{'_info' if family.type == 'info' else ''}"
        for family in Metrics().registry.collect()
    }
    assert registered == set(re.findall(r"^\| `(fivescore_\w+)`", REFERENCE, re.MULTILINE))


def test_the_manifest_in_the_reference_is_one() -> None:
    block = re.search(r"```json\n(\{\"version\".*?)```", REFERENCE, re.DOTALL)
    assert block
    Manifest.model_validate(json.loads(block[1]))


def test_the_readme_shows_the_commands_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z]+)`?", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def _section(heading: str) -> str:
    return REFERENCE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_the_labels_of_every_metric_are_documented() -> None:
    rows = re.findall(r"^\| `(fivescore_\w+)` \| (\w+) \|(.*?)\|", REFERENCE, re.MULTILINE)
    documented = {name.removesuffix("_total").removesuffix("_info"): row for name, *row in rows}
    metrics = Metrics()
    metrics.http_seconds.labels("GET", "/", "200")
    metrics.rank_tokens.labels("0")
    metrics.loaded(ModelInfo("m", 1, 1, 1, "d", "d", "e"), ["a"], None, 0.0, proved=False)
    for family in metrics.registry.collect():
        kind, labels = documented[family.name]
        names = re.sub(r"(kind|state|stage|reason|outcome|attribute): .*", r"\1", labels.strip())
        found = {name for sample in family.samples for name in sample.labels} - {"le"}
        assert (kind, set(filter(None, names.split(", ")))) == (family.type, found), family.name


async def test_the_fields_of_a_requests_log_line_are_documented_and_no_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        trace = trace_of(scope)
        for stage in STAGES:
            trace.add(stage, 0.0, 1.0)
        trace.trace_id = "0" * 32
        summarise(scope, [Score({}, 1.0, tokens=1)])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError

    async def send(message: Message) -> None:
        pass

    async def receive() -> Message:
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with caplog.at_level("INFO", "fivescore.http.context"):
        await RequestContext(app, Metrics())(scope, receive, send)
    fields = {name for one in caplog.records for name in json.loads(Json().format(one))}
    cells = re.findall(r"^\| (`.*?) \|", _section("Log lines"), re.MULTILINE)
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == fields


def test_the_bounds_of_logged_texts_are_documented() -> None:
    section = _section("Log lines").replace("\n", " ")
    assert f"the first {TEXT_PAIRS} pairs" in section
    assert f"up to {TEXT_CHARACTERS:,} characters" in section


def test_the_example_of_server_timing_names_every_stage() -> None:
    example = re.search(r"^Server-Timing: (.*)$", REFERENCE, re.MULTILINE)
    assert example
    assert [part.partition(";")[0] for part in example[1].split(", ")] == list(STAGES)
