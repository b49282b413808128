"""``python -m fivescore.client.integrations.nemo_gym FOLDER`` writes the resources server."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

FILES = ("app.py", "configs/fivescore.yaml", "requirements.txt")


def main(argv: Sequence[str] | None = None) -> int:
    """Copy the resources server's files; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fivescore.client.integrations.nemo_gym")
    parser.add_argument(
        "folder", type=Path, help="where NeMo-Gym looks for it: resources_servers/fivescore"
    )
    folder: Path = parser.parse_args(argv).folder
    if folder.exists() and any(folder.iterdir()):
        parser.error(f"{folder} is not empty: remove it, or choose another")
    for name in FILES:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(__file__).parent / name, target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
