"""``fivescore train``: makes a recipe of its flags and runs it."""

from __future__ import annotations

import argparse
from typing import Any

from fivescore.errors import ConfigurationError
from fivescore.training.recipe import Recipe, flag, load


def add_command(commands: Any) -> None:
    """Add ``train`` to the command line, with one flag per field of ``Recipe``."""
    train = commands.add_parser(
        "train",
        help="train a reward model",
        description="Fine-tune a backbone on HelpSteer2's attributes, or, as a second stage, on"
        " preferences, and write a folder that 'fivescore serve --model' takes. Several devices:"
        " accelerate launch -m fivescore train ...",
        allow_abbrev=False,
    )
    for name, field in Recipe.model_fields.items():
        text = (field.description or "").replace("%", "%%")
        if field.annotation is bool:
            train.add_argument(
                flag(name), action="store_true", default=argparse.SUPPRESS, help=text
            )
            continue
        if field.default is not None and not field.is_required() and "[" not in text:
            text += f" [{field.default}]"
        train.add_argument(
            flag(name),
            metavar="VALUE",
            required=field.is_required(),
            default=argparse.SUPPRESS,
            help=text,
        )
    train.set_defaults(run=_train)


def _train(flags: dict[str, Any]) -> int:
    recipe = load(flags)
    try:
        import accelerate  # noqa: F401  # the Trainer would report it missing late, in many lines
        import datasets  # noqa: F401
        import matplotlib  # noqa: F401
        import peft  # noqa: F401

        from fivescore.training.train import train
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"training is not installed ({error.name} is missing): pip install 'fivescore[train]'"
        ) from error
    train(recipe)
    return 0
