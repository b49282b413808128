"""The recorded command: pasted into a shell, it gives exactly the same recipe."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

import pytest

from fivescore.training.command import add_command
from fivescore.training.recipe import Recipe, load
from fivescore.training.record import command

LEAST = {"data": "d", "model": "m", "output": "o"}


def parse(line: str) -> Recipe:
    parser = argparse.ArgumentParser()
    add_command(parser.add_subparsers())
    flags = vars(parser.parse_args(shlex.split(line)[1:]))
    flags.pop("run")
    return load(flags)


@pytest.mark.parametrize(
    "given",
    [
        {"learning_rate": 1.2345678901234567e-05, "epochs": 1 / 3},
        {"weights": {"helpfulness": 1 / 3, "verbosity": -0.1234567890123}},
        {"weights": "verbosity=-1e-07"},
        {"data": "two words/it's.jsonl", "output": '"o"', "model": "$HOME/`m`"},
        {"system": "", "suffix": ""},
        {"suffix": "-- end\n", "system": "--model"},
        {"attributes": "helpfulness,verbosity", "uncentered": True, "steps": 2**20},
        {"lora_rank": 2, "lora_targets": "q_proj,v_proj", "lora_dropout": 0.1},
    ],
)
def test_the_command_gives_the_recipe_again(given: dict[str, Any]) -> None:
    recipe = load({**LEAST, **given})
    again = parse(command(recipe, devices=1))
    assert again == recipe
    assert again.model_fields_set == recipe.model_fields_set


def test_a_resumed_run_is_recorded_as_one_from_its_start() -> None:
    assert "--resume" not in command(load({**LEAST, "resume": True}), devices=1)


def test_several_devices_are_the_launchers() -> None:
    start = "accelerate launch --num_processes 2 -m fivescore train --data d"
    assert command(load(LEAST), devices=2).startswith(start)
