"""``fivescore train``, then ``fivescore serve`` on what it wrote: the same numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib import image

from fivescore.model.manifest import ATTRIBUTES, NEMOTRON_WEIGHTS
from tests.e2e.server import Server, environment, running
from tests.training import untrained, validation_pairs, write_data

TOLERANCE = 1e-4
LEAST_SPREAD = 0.1
"""How far apart predictions are: far above the tolerance, or nothing is shown."""
STEPS = 20
LORA = ("--lora-rank", "4", "--lora-dropout", "0.1", "--learning-rate", "1e-2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a LoRA run."""
    root = tmp_path_factory.mktemp("run")
    done = subprocess.run(
        [sys.executable, "-m", "fivescore", "train", "--data", str(data),
         "--model", str(untrained(root)), "--output", str(root / "judge"),
         "--batch-size", "16", "--micro-batch-size", "8", "--steps", str(STEPS),
         "--warmup-steps", "2", *LORA],
        env=environment({"OMP_NUM_THREADS": "1"}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == ""
    return root / "judge"


@pytest.fixture(scope="module")
def server(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("logs") / "judge.log"
    with running(log, "--model", str(trained)) as started:
        started.until_ready()
        yield started


def test_the_server_gives_the_validation_predictions(
    trained: Path, data: Path, server: Server
) -> None:
    lines = (trained / "validation.jsonl").read_text().splitlines()
    expected: list[dict[str, Any]] = [json.loads(line) for line in lines]
    answers = server.score(validation_pairs(data))
    assert len(answers) == len(expected) == 16
    for answer, row in zip(answers, expected, strict=True):
        for name in ATTRIBUTES:
            assert answer[name] == pytest.approx(row[name], abs=TOLERANCE), name
        terms = zip(ATTRIBUTES, NEMOTRON_WEIGHTS, strict=True)
        reward = sum(row[name] * weight for name, weight in terms)
        assert answer["reward"] == pytest.approx(reward, abs=5 * TOLERANCE)
    for name in ATTRIBUTES:
        values = [row[name] for row in expected]
        assert max(values) - min(values) > LEAST_SPREAD, name


def test_the_manifest_in_force_is_the_runs(trained: Path, server: Server) -> None:
    shown = server.http.get("/manifest").json()
    assert shown.pop("proved")
    assert len(shown.pop("digest")) == 64
    written = json.loads((trained / "reward.json").read_text())
    assert len(written.pop("proof")["pairs"]) >= 5
    assert {name: shown[name] for name in written} == written


def test_the_card_and_the_plot_can_be_read(trained: Path) -> None:
    record = json.loads((trained / "training.json").read_text())
    card = (trained / "README.md").read_text()
    assert record["steps"] == STEPS
    assert record["command"] in card
    assert "| helpfulness | 16 |" in card
    assert f"| steps | {STEPS}, best {record['best_step']} |" in card
    assert image.imread(trained / "training.png").std() > 0


def test_the_evaluation_of_the_server_finds_what_the_trainer_found(
    trained: Path, data: Path, server: Server, tmp_path: Path
) -> None:
    subprocess.run(
        [sys.executable, "-m", "fivescore", "evaluate", "helpsteer2",
         str(data / "validation.jsonl"), "--url", server.url, "--output", str(tmp_path)],
        env=environment(),
        check=True,
        capture_output=True,
        timeout=120,
    )  # fmt: skip
    found = json.loads((tmp_path / "helpsteer2.json").read_text())["result"]["attributes"]
    expected = json.loads((trained / "training.json").read_text())["validation"]
    for name in ATTRIBUTES:
        for metric in ("rows", "mse", "pearson", "spearman"):
            assert found[name][metric] == pytest.approx(expected[name][metric], abs=1e-3), name
    assert image.imread(tmp_path / "helpsteer2.png").std() > 0
