"""A proof: what it refuses by its token ids and its numbers, and what it tolerates."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fivescore.errors import ConfigurationError, NotProved
from fivescore.model import manifest as manifests
from fivescore.model.checkpoint import Checkpoint
from fivescore.model.manifest import Proof
from fivescore.model.proof import Sample, check_outputs, samples
from fivescore.model.reference import ReferenceTokenizer, prove
from fivescore.settings import DEMO, Settings
from tests.checkpoints import MAKERS
from tests.unit.engines import DEMO_INFO

PROOF = manifests.read(f"{DEMO}/reward.json").proof or pytest.fail("the demo has no proof")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the demo checkpoint."""
    return Path(shutil.copytree(DEMO, tmp_path / "demo"))


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def loaded(folder: Path, **settings: object) -> list[Sample]:
    return Checkpoint(Settings.model_validate({"model": str(folder), **settings})).samples()


def without_half_of_the_merges(file: Path) -> None:
    content = json.loads(file.read_text())
    merges = content["model"]["merges"]
    content["model"]["merges"] = merges[: len(merges) // 2]
    file.write_text(json.dumps(content))


CHANGES: dict[str, Callable[[Path], object]] = {
    "template": lambda f: edit(f / "chat_template.jinja", "\n\n", "\n"),
    "suffix": lambda f: edit(f / "reward.json", '"suffix": null', '"suffix": "!"'),
    "system": lambda f: edit(f / "reward.json", '"system": null', '"system": "Be strict."'),
    "tokenizer": lambda f: without_half_of_the_merges(f / "tokenizer.json"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_another_tokenizer_or_rendering_is_refused_before_the_weights(
    folder: Path, change: Callable[[Path], object]
) -> None:
    assert len(loaded(folder)) == len(PROOF.pairs)
    change(folder)
    with pytest.raises(NotProved, match=r"proof does not hold for pair \d \('.*fivescore check"):
        loaded(folder)


def test_pairs_that_have_no_room_are_left_out(folder: Path) -> None:
    found = loaded(folder, max_tokens=30)
    assert 0 < len(found) < len(PROOF.pairs)
    assert all(len(sample.token_ids) <= 30 for sample in found)


def moved(proof: Proof, by: float, place: int = 2, output: int = 3) -> list[list[float]]:
    """The proof's outputs, one of them moved by a share of its range."""
    outputs = [list(pair.outputs) for pair in proof.pairs]
    column = [row[output] for row in outputs]
    outputs[place][output] += by * (max(column) - min(column))
    return outputs


@pytest.mark.parametrize(
    ("dtype", "quantization", "within", "beyond"),
    [
        ("float32", None, 5e-4, 2e-3),
        ("float16", None, 1e-2, 4e-2),
        ("bfloat16", None, 5e-2, 2e-1),
        ("bfloat16", "fp8", 2e-1, 5e-1),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_tolerance_follows_the_dtype_and_the_quantisation(
    dtype: str, quantization: str | None, within: float, beyond: float, sign: int
) -> None:
    info = replace(DEMO_INFO, dtype=dtype, quantization=quantization)
    checked = [Sample(place, pair, []) for place, pair in enumerate(PROOF.pairs)]
    found = check_outputs(PROOF, checked, moved(PROOF, sign * within), info)
    assert found == pytest.approx(within, rel=0.05)
    with pytest.raises(NotProved, match=r"pair 2 \(.*output 3 is .* is allowed \("):
        check_outputs(PROOF, checked, moved(PROOF, sign * beyond), info)


def test_a_number_that_is_none_is_refused() -> None:
    checked = [Sample(place, pair, []) for place, pair in enumerate(PROOF.pairs)]
    with pytest.raises(NotProved, match="is nan"):
        check_outputs(PROOF, checked, moved(PROOF, math.nan), DEMO_INFO)


def test_outputs_that_hardly_vary_are_compared_by_their_size() -> None:
    pairs = [pair.model_copy(update={"outputs": (100.0,)}) for pair in PROOF.pairs]
    proof = PROOF.model_copy(update={"pairs": tuple(pairs)})
    checked = [Sample(place, pair, []) for place, pair in enumerate(pairs)]
    assert check_outputs(proof, checked, [[100.001]] * len(pairs), DEMO_INFO) < 1e-3
    with pytest.raises(NotProved):
        check_outputs(proof, checked, [[100.1]] * len(pairs), DEMO_INFO)


@pytest.mark.parametrize("name", MAKERS)
def test_a_proof_is_of_the_references_ids_in_every_format(name: str, tmp_path: Path) -> None:
    folder = MAKERS[name](tmp_path / name)
    manifest = manifests.beside(str(folder), None, name) or manifests.for_outputs(
        {"llama": 5, "scalar": 1}[name]
    )
    proved = prove(folder, manifest)
    manifests.write(folder / manifests.FILE_NAME, proved)
    assert proved.proof is not None
    assert len(loaded(folder)) == len(proved.proof.pairs) >= 5
    assert manifests.read(str(folder / manifests.FILE_NAME)).proof == proved.proof


def test_a_proof_is_not_made_of_other_ids(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReferenceTokenizer, "token_ids", lambda *_: [1, 2, 3])
    with pytest.raises(ConfigurationError, match=r"token ids of pair 0 .* are not the reference's"):
        prove(folder, manifests.read(str(folder / "reward.json")))


def test_samples_need_no_limit() -> None:
    conversation = Checkpoint(Settings(model=DEMO)).conversation()
    assert len(samples(PROOF, conversation, None)) == len(PROOF.pairs)
