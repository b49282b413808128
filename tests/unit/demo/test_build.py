"""The bundled checkpoint is small, says what it is, and is what its script makes."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from fivescore.demo.build import CHECKPOINT, write_manifest, write_model


def test_the_bundled_checkpoint_is_at_most_8_mb() -> None:
    assert sum(file.stat().st_size for file in CHECKPOINT.iterdir()) <= 8e6


def test_its_card_says_plainly_that_it_is_random() -> None:
    assert "weights are random: the scores mean nothing" in (CHECKPOINT / "README.md").read_text()


def test_its_script_makes_the_same_again(tmp_path: Path) -> None:
    write_model(tmp_path)
    write_manifest(tmp_path)
    for name in ("config.json", "reward.json"):
        assert (tmp_path / name).read_text() == (CHECKPOINT / name).read_text()
    made, bundled = (load_file(folder / "model.safetensors") for folder in (tmp_path, CHECKPOINT))
    assert made.keys() == bundled.keys()
    assert all(made[name].equal(bundled[name]) for name in bundled)
