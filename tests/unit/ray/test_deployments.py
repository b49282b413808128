"""The application's arguments, its file, and how many engines it wants."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from fivescore.errors import ConfigurationError
from fivescore.ray.deployments import Arguments, app, wanted
from fivescore.ray.engines import SEQUENCES
from fivescore.settings import load

FILE = Path(__file__).parents[3] / "deploy" / "ray" / "serve.yaml"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"engine": 2}, "engine: Extra inputs are not permitted .known: engines, "),
        ({"engines": 0}, "engines: .*greater than or equal to 1"),
        ({"engines": 4, "most_engines": 2}, "most_engines 2 is less than engines 4"),
        ({"cpus": "many"}, "cpus: "),
    ],
)
def test_a_wrong_argument_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        app(given)


def test_a_wrong_setting_stops_it_before_any_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIVESCORE_MAX_PAIRS", "none")
    with pytest.raises(ConfigurationError, match=r"(?i)max_pairs"):
        app({})


def test_words_of_a_command_line_are_numbers() -> None:
    assert Arguments.model_validate({"engines": "3", "cpus": "0.5"}).most == 3
    app({"engines": "3", "most_engines": "5"})


@pytest.mark.parametrize("inflight", [0, 1, 256, 257, 1024, 10**6])
def test_as_many_engines_as_the_sequences_in_flight_need(inflight: int) -> None:
    context = SimpleNamespace(
        aggregated_metrics={SEQUENCES: {"a": inflight / 2, "b": inflight / 2}},
        config=SimpleNamespace(target_ongoing_requests=256, min_replicas=2, max_replicas=8),
    )
    number, _ = wanted(context)
    assert number == min(8, max(2, math.ceil(inflight / 256)))


def test_the_deployed_file_is_one_of_serve_and_of_fivescore(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (application,) = ServeDeploySchema.model_validate(yaml.safe_load(FILE.read_text())).applications
    Arguments.model_validate(application.args)
    for name, value in application.runtime_env["env_vars"].items():
        monkeypatch.setenv(name, value)
    load({})
