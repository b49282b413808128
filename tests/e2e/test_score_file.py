"""``fivescore score FILE`` against the demo checkpoint: right scores, and the model's digest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyarrow import parquet

from fivescore.cli import main
from fivescore.types import ATTRIBUTES
from tests.e2e.server import Server
from tests.unit.data.files import write


def digest_of(server: Server) -> str | None:
    digest: str | None = server.http.get("/manifest").json()["digest"]
    return digest


def test_a_file_has_the_scores_of_its_pairs_and_the_digest_of_the_model(
    demo: Server, tmp_path: Path
) -> None:
    demo.until("the digest, which is read after the load", lambda: bool(digest_of(demo)))
    pairs = [{"prompt": f"Name {n} primes.", "response": "Seven. " * n} for n in range(40)]
    source, target = write(tmp_path / "in.parquet", pairs), tmp_path / "out.parquet"
    assert main(["score", str(source), "-o", str(target), "--url", demo.url]) == 0
    found = demo.score(pairs)
    table = parquet.read_table(target)
    for name in ("reward", *ATTRIBUTES):
        expected = [one[name] for one in found]
        assert table[name].to_pylist() == pytest.approx(expected, abs=1e-4)
    record = json.loads(parquet.read_metadata(target).metadata[b"fivescore"])
    assert record["digest"] == digest_of(demo)
    assert len(record["digest"]) == 64
