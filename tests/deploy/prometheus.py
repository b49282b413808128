"""A real Prometheus on loopback with this repository's rules, and with shorter times."""

from __future__ import annotations

import math
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.e2e.server import free_port
from tests.tools import tool

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
START_SECONDS = 60
DATA_SECONDS = 90
SECOND = "1s"
PAST = "5s"
"""In place of an hour or a day ago: nothing here is that old."""


def shorten(expression: str) -> str:
    """The expression with what it looks back to within this test's life."""
    return re.sub(r"offset \d+[smhd]", f"offset {PAST}", expression)


class Prometheus:
    """A server and what it answers."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self._process = process
        self._log = log
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def close(self) -> None:
        self._http.close()
        self._process.terminate()
        self._process.wait(START_SECONDS)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            with suppress(httpx.TransportError):
                if self._http.get("/-/ready").status_code == 200:
                    return
            time.sleep(0.1)

    def values(self, expression: str) -> list[float]:
        """The expression's value now, one number a series."""
        answer = self._http.post("/api/v1/query", data={"query": shorten(expression)}).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        result: Any = answer["data"]["result"]
        return [float(series["value"][1]) for series in result]

    def wait_for(self, expression: str) -> list[float]:
        """Ask until there are numbers; a series that is not a number is no data."""
        deadline = time.monotonic() + DATA_SECONDS
        while True:
            values = self.values(expression)
            if values and not any(map(math.isnan, values)):
                return values
            assert time.monotonic() < deadline, f"no data, but {values}: {shorten(expression)}"
            time.sleep(0.5)


@contextmanager
def prometheus(folder: Path, target: str, key: str = "none") -> Iterator[Prometheus]:
    """Scrape ``target`` (host and port) with its key as the job fivescore until the end."""
    program, port = tool("prometheus"), free_port()
    config = _configured(folder, target, f"127.0.0.1:{port}")
    (folder / "metrics-key").write_text(key)
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address=127.0.0.1:{port}"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )  # fmt: skip
    found = Prometheus(process, f"http://127.0.0.1:{port}", log)
    try:
        found.wait_until_ready()
        yield found
    finally:
        found.close()


def _configured(folder: Path, target: str, own: str) -> Path:
    """The configuration of ``deploy/prometheus``, with these targets and every time a second."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(
        ("scrape_interval", "scrape_timeout", "evaluation_interval"), SECOND
    )
    targets = {"fivescore": target, "prometheus": own}
    config["scrape_configs"] = [
        {**scrape, "static_configs": [{"targets": [targets[scrape["job_name"]]]}]}
        for scrape in config["scrape_configs"]
        if scrape["job_name"] in targets
    ]
    (folder / "rules").mkdir()
    for path in FOLDER.glob(config["rule_files"][0]):
        rules = yaml.safe_load(shorten(path.read_text()))
        for group in rules["groups"]:
            group["interval"] = SECOND
        (folder / "rules" / path.name).write_text(yaml.safe_dump(rules))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    return folder / "prometheus.yml"
