"""Options that can change the number of outputs are seen however they are given."""

from __future__ import annotations

import pytest

from fivescore.model.engine_options import change_outputs, merged
from fivescore.settings import load


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FIVESCORE_ENGINE", '{"hf_overrides": {"num_labels": 1}}'),
        ("FIVESCORE_ENGINE", '{"hf-overrides.num_labels": 1}'),
        ("FIVESCORE_ENGINE__HF_OVERRIDES", '{"num_labels": 1}'),
        ("FIVESCORE_ENGINE__HF_OVERRIDES__NUM_LABELS", "1"),
        ("FIVESCORE_ENGINE__OUTPUTS", "1"),
    ],
)
def test_in_a_variable(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert change_outputs(load({}).engine)


@pytest.mark.parametrize("name", ["hf-overrides.num_labels", "hf_overrides.x.y", "hf-overrides"])
def test_in_a_flag(name: str) -> None:
    assert change_outputs({name: "{}"})
    assert not change_outputs({"dtype": "float32"})


def test_lists_of_two_spellings_are_joined() -> None:
    options = {"hf-overrides.architectures+": "A,B", "hf_overrides.architectures+": "C"}
    assert merged(options) == {"hf_overrides": {"architectures": ["A", "B", "C"]}}
