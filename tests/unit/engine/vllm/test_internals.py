"""What we use of vLLM is looked up; what is missing is done without, or stops the start."""

from __future__ import annotations

import importlib
from multiprocessing.forkserver import ForkServer
from pathlib import Path

import pytest

from fivescore.engine.vllm import internals
from fivescore.engine.vllm.internals import INTERNALS, Internal

pytest.importorskip("fivescore.engine.vllm.engine")
IMPORTED = [one for one in INTERNALS if not one.unimported]
for _one in IMPORTED:  # at collection, where warnings of libraries are no errors
    importlib.import_module(_one.module)
ON_CLASSES = [one for one in IMPORTED if not one.on_instances]


def remove(one: Internal, monkeypatch: pytest.MonkeyPatch) -> None:
    *owners, name = one.name.split(".")
    owner = importlib.import_module(one.module)
    for part in owners:
        owner = getattr(owner, part)
    fields = getattr(owner, "__dataclass_fields__", {})
    if name in fields:
        monkeypatch.delitem(fields, name)
    for base in getattr(owner, "__mro__", (owner,)):
        if name in vars(base):
            monkeypatch.delattr(base, name)
    if isinstance(owner, ForkServer) and hasattr(owner, name):
        monkeypatch.delattr(type(owner), name)


@pytest.mark.parametrize("one", ON_CLASSES, ids=str)
def test_each_name_that_is_missing_is_noticed_and_logged_once(
    one: Internal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert internals.usable(one.without)
    with monkeypatch.context() as patch:
        remove(one, patch)
        assert not internals.usable(one.without)
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(str(one))
    assert line.endswith(f"so {one.without}")


def test_another_signature_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("vllm.v1.engine.output_processor")
    monkeypatch.setattr(module.OutputProcessor, "add_request", lambda self, request: None)
    assert internals.missing(internals.ENCODE) == [
        "vllm.v1.engine.output_processor.OutputProcessor.add_request"
    ]


def test_the_installed_vllm_has_all_by_its_sources_too(capsys: pytest.CaptureFixture[str]) -> None:
    found = importlib.import_module("vllm").__file__
    assert found is not None
    assert internals.main(["--against", str(Path(found).parent)]) == 0
    assert "every name is where it was" in capsys.readouterr().out


def test_what_moved_in_an_unpacked_vllm_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "vllm" / "v1" / "engine" / "async_llm.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "class AsyncLLM:\n"
        "    def __init__(self) -> None:\n"
        "        self.engine_core = 1\n"
        "    async def abort(self, request_id): ...\n"
    )
    assert internals.main(["--against", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    told = {line.split(": ")[0]: line.split(": ")[1] for line in lines}
    assert told["vllm.v1.engine.async_llm.AsyncLLM.abort"].startswith("it does not take internal")
    assert told["vllm.v1.engine.async_llm.AsyncLLM.encode"].startswith("no such name")
    assert told["vllm.inputs.engine.tokens_input"].startswith("no such module")
    assert "vllm.v1.engine.async_llm.AsyncLLM.engine_core" not in told
    assert all(line.count("without it") == 1 for line in lines)


def test_a_folder_without_vllm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        internals.main(["--against", str(tmp_path)])
