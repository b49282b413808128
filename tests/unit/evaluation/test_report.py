"""What every report has, whatever was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from fivescore.evaluation import report
from fivescore.evaluation.session import Options
from tests.unit.evaluation.sources import source


def options(folder: Path, **changed: object) -> Options:
    command = ["fivescore", "evaluate", "rmbench", "--url", "http://any:s3cret@host:8000"]
    return Options(command, folder, ["x.json"], "train", **changed)  # type: ignore[arg-type]


def test_a_report_is_three_files_without_keys(tmp_path: Path) -> None:
    data = source({}, {}, name="x")
    data.bad.add("x.jsonl:2", "no prompt")
    given = options(tmp_path, limit=2)
    paths = report.write("name", "A title", given, {}, [data], {"a": 1}, ["text"], Figure())
    assert [path.name for path in paths] == ["name.json", "name.md", "name.png"]
    document = json.loads(paths[0].read_text())
    assert document["result"] == {"a": 1}
    assert document["command"][-1] == "http://host:8000"
    assert document["versions"]["fivescore"]
    assert document["data"] == [
        {"origin": "x.jsonl", "rows": 2, "sha256": None, "unusable": {"no prompt": 1},
         "first": {"no prompt": "x.jsonl:2"}}
    ]  # fmt: skip
    text = paths[1].read_text()
    assert text.startswith("# A title\n")
    assert "only the first 2 rows" in text
    assert "not used: 1 rows: no prompt (first: `x.jsonl:2`)" in text
    assert "s3cret" not in text


def test_nan_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.write("n", "t", options(tmp_path), {}, [], {"a": float("nan")}, [], Figure())


def test_tables_survive_what_is_in_them() -> None:
    text = report.table(["a", "b"], [["x|y", 0.5], ["two\nlines", None], ["n", 1e-7]])
    assert text.splitlines()[2:] == ["| x\\|y | 0.5 |", "| two lines | - |", "| n | 1e-07 |"]
    assert report.percent(0.9406) == "94.1"
    assert report.percent(None) is None
    assert report.interval((0.1, 0.25)) == "10.0 to 25.0"
