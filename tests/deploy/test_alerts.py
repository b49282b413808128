"""The rules: valid, tested both ways, and each with its section in the runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.generate import boards
from deploy.grafana.metrics import bounds, faults, known, rules
from deploy.grafana.model import DEVIATIONS
from deploy.grafana.promql import SCORING, middle_mean
from deploy.grafana.service import TARGET_SECONDS
from tests.tools import tool

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"
TESTS = sorted((FOLDER / "tests").glob("*.yml"))
ALERTS = {rule.name: rule for rule in rules() if rule.is_alert}
RECORDINGS = [rule for rule in rules() if not rule.is_alert]
SECTIONS = re.split(r"^## ", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]


def promtool(*arguments: str | Path) -> str:
    answer = subprocess.run(
        [tool("promtool"), *map(str, arguments)], capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def test_promtool_takes_the_configuration_and_the_rules_that_it_names(tmp_path: Path) -> None:
    """As it is mounted: with the key's file beside it, which it refuses to miss."""
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    (tmp_path / "metrics-key").write_text("none")
    told = promtool("check", "config", tmp_path / "prometheus.yml")
    assert all(path.name in told for path in (FOLDER / "rules").glob("*.yml"))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_alerts_fire_when_they_should(path: Path) -> None:
    promtool("test", "rules", path)


def _expectations() -> list[dict[str, Any]]:
    return [
        expected
        for path in TESTS
        for test in yaml.safe_load(path.read_text())["tests"]
        for expected in test["alert_rule_test"]
    ]


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_is_tested_to_fire_and_not_to_fire_and_says_what_to_do(name: str) -> None:
    found = [one for one in _expectations() if one["alertname"] == name]
    assert any(one.get("exp_alerts") for one in found)
    assert any(not one.get("exp_alerts") for one in found)
    body = ALERTS[name].body
    assert body["labels"]["severity"] in ("page", "ticket")
    assert set(body["annotations"]) == {"summary", "description", "runbook_url"}
    assert body["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_the_tests_know_only_alerts_that_exist() -> None:
    assert {one["alertname"] for one in _expectations()} == set(ALERTS)


def test_the_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    assert [section.split("\n", 1)[0] for section in SECTIONS] == list(ALERTS)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.split("\n", 1)[0])
def test_a_section_says_what_it_means_what_to_look_at_and_what_to_do(section: str) -> None:
    name, text = section.split("\n", 1)
    assert text.startswith(f"*{ALERTS[name].body['labels']['severity']}.*")
    if name != "FivescoreInstanceNotReady":  # "Look at and do: as for ..."
        assert "\nLook at: " in text
        assert "\nDo: " in text


def test_the_runbook_names_panels_that_exist() -> None:
    """Whatever is in italics, with a capital, is a panel's or a row's title."""
    titles = {
        inner["title"]
        for board in boards().values()
        for panel in board["panels"]
        for inner in (panel, *panel.get("panels", ()))
    }
    named = set(re.findall(r"\*([A-Z][^*\n]+)\*", RUNBOOK.read_text().replace("**", "")))
    assert named - {"Status, Targets", "Target"} <= titles


def test_the_runbook_asks_only_for_metrics_that_exist() -> None:
    for query in re.findall(r"^`(sum .*)`;$", RUNBOOK.read_text(), flags=re.MULTILINE):
        assert faults(query, known()) == []


def test_alerts_and_boards_have_the_same_bounds() -> None:
    assert f"p99_10m > {TARGET_SECONDS} " in ALERTS["FivescoreSlow"].expression
    assert (
        f"within {TARGET_SECONDS} s" in ALERTS["FivescoreSlow"].body["annotations"]["description"]
    )
    assert f"> {DEVIATIONS} " in ALERTS["FivescoreAttributeDrift"].expression


def test_rules_and_boards_mean_the_same_requests() -> None:
    requests = [r.expression for r in RECORDINGS if "http_request" in r.expression]
    assert requests
    assert all(SCORING in expression for expression in requests)


def test_the_mean_in_the_rules_is_the_boards() -> None:
    (rule,) = (r for r in RECORDINGS if r.name == "fivescore:attribute_score:mean1h")
    metric, by = "fivescore_attribute_score", "sum by (job, attribute)"
    expected = middle_mean(
        lambda le: f"{by} (rate({metric}_bucket{{{le}}}[1h]))",
        f"{by} (rate({metric}_count[1h]))",
        bounds(metric),
    )
    assert rule.expression.startswith(expected)


def test_recorded_names_are_used() -> None:
    asked = [rule.expression for rule in rules()] + [str(board) for board in boards().values()]
    for rule in RECORDINGS:
        assert any(rule.name in text for text in asked), rule.name
