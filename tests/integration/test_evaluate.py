"""``fivescore evaluate`` against servers with the fake engine: reports, resumption, failures."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fivescore.cli import main
from fivescore.client import RewardClient
from fivescore.model import manifest
from tests.integration.process import ServerProcess, server
from tests.integration.service import Json, metric

ATTRIBUTES = manifest.ATTRIBUTES
PNG = b"\x89PNG\r\n\x1a\n"
KEY = "s3cret"


@pytest.fixture(scope="module")
def faulty() -> Iterator[ServerProcess]:
    """Wants a key, takes a while, fails on every 15th pair and dies at its 500th."""
    faults = ("--engine.latency-seconds", "0.2", "--engine.fail-every", "15")
    with server(
        *faults, "--engine.die-after", "500", "--engine-restarts", "0", "--api-key", KEY
    ) as process:
        yield process


def keyed(process: ServerProcess) -> str:
    return process.ready().url.replace("://", f"://any:{KEY}@")


def write(path: Path, rows: list[Json]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def preferences(count: int, start: int = 0) -> list[Json]:
    return [
        {"id": i, "prompt": f"Q{i}", "chosen": f"yes {i}", "rejected": f"no {i}", "subset": "x"}
        for i in range(start, start + count)
    ]


def evaluate(kind: str, *arguments: str) -> int:
    return main(["evaluate", kind, "--retry", "0", "--batch-size", "8", *arguments])


def read(folder: Path, name: str) -> Json:
    """A report's JSON; its other files must be there and say the same model."""
    assert (folder / f"{name}.png").read_bytes().startswith(PNG)
    text = (folder / f"{name}.md").read_text()
    assert f"]({name}.png)" in text
    assert not re.search(r"\bnan\b", text)
    document: Json = json.loads((folder / f"{name}.json").read_text(), parse_constant=str)
    for told in document["servers"].values():
        assert told["server"]["model"] in text
        assert KEY not in json.dumps(told)
    return document


def answered(url: str) -> int:
    """How many pairs a server has scored."""
    return int(metric(httpx.get(f"{url}/metrics").text, "fivescore_pairs_total", outcome="ok"))


def test_helpsteer2(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = "Hi\n<extra_id_1>Assistant\nHello.\n<extra_id_1>User\nName a prime."
    rows = [
        {"prompt": turns if i % 2 else f"Q{i}", "response": f"A{i}",
         **{name: (i + j) % 5 for j, name in enumerate(ATTRIBUTES)}}
        for i in range(20)
    ]  # fmt: skip
    rows[3]["response"] = "word " * 5000
    write(tmp_path / "validation.jsonl", rows)
    out = tmp_path / "out"
    common = ("helpsteer2", str(tmp_path), "--url", url, "-o", str(out))
    assert evaluate(*common) == 0
    files = capsys.readouterr().out.split()
    assert files == [str(out / f"helpsteer2.{suffix}") for suffix in ("json", "md", "png")]
    document = read(out, "helpsteer2")
    result = document["result"]
    assert result["rows"] == {"total": 20, "scored": 19, "failed": 1}
    assert document["servers"]["server"]["failures"]["by_code"] == {"too_long": 1}
    assert list(result["attributes"]) == list(ATTRIBUTES)
    with RewardClient(url) as client:
        scores = client.score([("Q0", "A0")])
    one = result["attributes"]["helpfulness"]
    assert one["predicted"]["min"] <= scores[0].attributes["helpfulness"] <= one["predicted"]["max"]
    assert sum(each["rows"] for each in one["calibration"]) == 19
    # Another run asks for nothing but the probe, and --truncate is another way to score.
    before = answered(url)
    assert evaluate(*common) == 0
    assert answered(url) == before + 1
    again = read(out, "helpsteer2")
    assert again["result"] == result
    assert again["servers"]["server"]["pairs"]["known_before"] == 20
    assert evaluate(*common, "--truncate", "prompt_start", "--limit", "4") == 0
    document = read(out, "helpsteer2")
    assert document["result"]["rows"] == {"total": 4, "scored": 4, "failed": 0}
    assert document["servers"]["server"]["pairs"]["truncated"] == 1


def test_rewardbench_and_preferences_share_scores(url: str, tmp_path: Path) -> None:
    rows = [
        {"input": f"Q{i}", "output_1": f"A{i}", "output_2": f"B{i}", "label": str(1 + i % 2)}
        for i in range(12)
    ]
    rows[5]["output_2"] = rows[5]["output_1"]  # a tie
    data = tmp_path / "llmbar-adver-Manual.json"
    data.write_text(json.dumps(rows))
    common = (str(data), "--url", url, "-o", str(tmp_path / "out"))
    assert evaluate("rewardbench", *common) == 0
    result = read(tmp_path / "out", "rewardbench")["result"]
    assert result["overall"] is None
    ((name, subset),) = result["subsets"].items()
    assert (name, subset["rows"], subset["ties"]) == ("llmbar-adver-manual", 12, 1)
    assert subset["right"] + subset["wrong"] == 11
    before = answered(url)
    assert evaluate("preferences", *common) == 0
    assert answered(url) == before + 1
    overall = read(tmp_path / "out", "preferences")["result"]["overall"]
    assert overall["accuracy"] == subset["accuracy"]


def test_rmbench(url: str, tmp_path: Path) -> None:
    sources = []
    for domain in ("chat", "safety-refuse"):
        rows = [
            {"prompt": f"Q{i}", "chosen": [f"{domain} {i} {s}" for s in "abc"],
             "rejected": [f"{domain} {i} {s}" for s in "def"]}
            for i in range(4)
        ]  # fmt: skip
        path = tmp_path / f"{domain}_filtered.json"
        path.write_text(json.dumps(rows))
        sources.append(str(path))
    assert evaluate("rmbench", *sources, "--url", url, "-o", str(tmp_path / "out")) == 0
    result = read(tmp_path / "out", "rmbench")["result"]
    assert result["parts"]["chat"]["rows"] == 4
    assert sum(result["parts"]["chat"]["comparisons"].values()) == 36
    assert set(result["domains"]) == {"chat", "safety"}
    assert result["missing"] == ["math", "code", "safety-response"]
    with RewardClient(url) as client:
        pairs = [(f"Q{i}", f"chat {i} {s}") for i in range(4) for s in "abcdef"]
        rewards = [score.reward for score in client.score(pairs)]
    right = [rewards[6 * i] > rewards[6 * i + 3] for i in range(4)]
    assert result["parts"]["chat"]["matrix"][0][0] == sum(right) / 4


def test_fit_weights_writes_a_manifest_that_serves(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = preferences(60)
    pairs = [(row["prompt"], row[side]) for row in rows for side in ("chosen", "rejected")]
    with RewardClient(url) as client:
        scores = client.score(pairs)
    for row, one, other in zip(rows, scores[::2], scores[1::2], strict=True):
        if one.attributes["coherence"] < other.attributes["coherence"]:
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    data, out = write(tmp_path / "data.jsonl", rows), tmp_path / "out"
    common = (data, "--url", url, "-o", str(out), "--resamples", "20")
    assert evaluate("fit-weights", *common) == 0
    result = read(out, "fit-weights")["result"]
    assert result["fitted"]["accuracy"] == 1.0
    assert result["cross_validated"]["accuracy"] > 0.8
    assert max(result["weights"], key=lambda name: result["weights"][name]) == "coherence"
    written = manifest.read(str(out / "reward.json"))
    assert isinstance(written.reward, manifest.Combined)
    assert written.reward.weights == result["weights"]
    with RewardClient(url) as client:
        new = [one.reward for one in client.score(pairs, weights=result["weights"])]
    by_pair = dict(zip(pairs, new, strict=True))
    assert all(
        by_pair[row["prompt"], row["chosen"]] > by_pair[row["prompt"], row["rejected"]]
        for row in rows
    )
    capsys.readouterr()
    assert evaluate("fit-weights", *common) == 1
    assert "--force" in capsys.readouterr().err
    assert evaluate("fit-weights", *common, "--force", "--metric", "rewardbench") == 1
    assert "'x' is no subset of RewardBench" in capsys.readouterr().err
    assert evaluate("fit-weights", *common, "--force", "--seed", "1") == 0


def test_compare(url: str, faulty: ServerProcess, tmp_path: Path) -> None:
    data, out = write(tmp_path / "data.jsonl", preferences(20)), tmp_path / "out"
    other = keyed(faulty)
    assert evaluate("compare", url, other, data, "-o", str(out)) == 0
    document = read(out, "compare")
    result = document["result"]
    failed = document["servers"]["B"]["pairs"]["failed"]
    assert failed in (2, 3)
    assert result["pairs"] == {"total": 40, "scored_by_both": 40 - failed}
    assert result["values"]["reward"]["spearman"] == pytest.approx(1.0)
    assert result["values"]["reward"]["largest"]["change"] == pytest.approx(0.0)
    assert result["preferences"]["flipped"] == 0
    assert result["preferences"]["b"]["failed"] == failed
    # What failed on its own is asked again.
    before = answered(other)
    assert evaluate("compare", url, other, data, "-o", str(out)) == 0
    assert answered(other) - before <= 1 + failed
    assert read(out, "compare")["servers"]["B"]["pairs"]["failed"] < failed


def test_a_run_that_was_killed_goes_on_where_it_was(faulty: ServerProcess, tmp_path: Path) -> None:
    url = keyed(faulty)
    data, out = write(tmp_path / "data.jsonl", preferences(40, 100)), tmp_path / "out"
    arguments = ["preferences", data, "--url", url, "-o", str(out), "--concurrency", "1"]
    command = [sys.executable, "-m", "fivescore", "evaluate", *arguments, "--batch-size", "8"]
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    store = out / "scores.jsonl"
    give_up_at = time.monotonic() + 60
    while not store.exists() or store.read_bytes().count(b"\n") < 20:
        assert time.monotonic() < give_up_at
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    known = store.read_bytes().count(b"\n") - 1
    assert 19 <= known < 80
    while metric(httpx.get(f"{url}/metrics").text, "fivescore_inflight_pairs"):
        assert time.monotonic() < give_up_at
        time.sleep(0.02)
    before = answered(url)
    assert evaluate(*arguments) == 0
    document = read(out, "preferences")
    pairs = document["servers"]["server"]["pairs"]
    assert pairs["known_before"] == known
    assert (pairs["asked"], pairs["scored"] + pairs["failed"]) == (80, 80)
    assert answered(url) - before <= 1 + 80 - known


def test_scores_of_another_model_are_not_mixed_in(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write(tmp_path / "data.jsonl", preferences(3)), tmp_path / "out"
    common = ("preferences", data, "--url", url, "-o", str(out))
    assert evaluate(*common) == 0
    store = out / "scores.jsonl"
    store.write_text(store.read_text().replace('"fivescore-demo"', '"elder"', 1))
    capsys.readouterr()
    assert evaluate(*common) == 1
    err = capsys.readouterr().err
    assert "holds scores of elder" in err
    assert "--fresh" in err
    assert evaluate(*common, "--fresh") == 0


def test_a_server_that_dies_loses_no_score_and_another_takes_over(
    url: str, faulty: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write(tmp_path / "data.jsonl", preferences(300, 200)), tmp_path / "out"
    common = ("preferences", data, "-o", str(out), "--batch-size", "64")
    assert evaluate(*common, "--url", faulty.ready().url) == 1
    assert "401" in capsys.readouterr().err
    assert evaluate(*common, "--url", keyed(faulty)) == 1
    err = capsys.readouterr().err
    assert re.search(r"fivescore: error: \d+ of 600 pairs are not scored: .*again to continue", err)
    assert not (out / "preferences.json").exists()
    known = (out / "scores.jsonl").read_bytes().count(b"\n") - 1
    assert known >= 64
    before = answered(url)
    assert evaluate(*common, "--url", url) == 0
    assert answered(url) - before == 1 + 600 - known
    pairs = read(out, "preferences")["servers"]["server"]["pairs"]
    assert (pairs["known_before"], pairs["scored"]) == (known, 600)
