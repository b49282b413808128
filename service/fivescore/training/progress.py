"""Shows a run on standard error: a progress bar of steps, and a line per validation."""

from __future__ import annotations

import os
import sys
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

SHOWN = ("eval_mse", "eval_preference_loss", "eval_preference_accuracy")


def print_line(line: str) -> None:
    """Print a line on standard error, in one process alone."""
    if is_main():
        tqdm.write(line, file=sys.stderr)


def is_main() -> bool:
    """Whether this is the first of the processes that a launcher started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


class Progress(TrainerCallback):  # type: ignore[misc]  # transformers is Any to mypy
    """Shows the loss beside the bar and the validation metrics above it."""

    def __init__(self) -> None:
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        hidden = not is_main()
        self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc="train",
                         unit="step", dynamic_ncols=True, disable=hidden)  # fmt: skip

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if self._bar is None or self._bar.disable or logs is None:
            return
        if "loss" in logs:
            self._bar.set_postfix(loss=f"{logs['loss']:.4f}", refresh=False)
        shown = [f"{name.removeprefix('eval_')} {logs[name]:.4f}" for name in SHOWN if name in logs]
        shown += [
            f"{name.removeprefix('eval_').removesuffix('_pearson')} r={value:.3f}"
            for name, value in logs.items()
            if name.endswith("_pearson")
        ]
        if shown:
            print_line(f"step {state.global_step}: validation " + ", ".join(shown))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.close()
        self._bar = None
