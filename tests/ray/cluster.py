"""``python -m tests.ray.cluster serve --port N ARGUMENT=VALUE...``: becomes ``serve run`` of the
deployed file, on one machine, with other arguments and without its variables."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import yaml

FILE = Path(__file__).parents[2] / "deploy" / "ray" / "serve.yaml"


def main(words: list[str]) -> None:
    _, _, port, *given = words
    config = yaml.safe_load(FILE.read_text())
    config["http_options"] = {"host": "127.0.0.1", "port": int(port)}
    config["proxy_location"] = "HeadOnly"
    (application,) = config["applications"]
    application["args"] = {k: yaml.safe_load(v) for k, v in (word.split("=") for word in given)}
    del application["runtime_env"]
    # Not pytest's folder: the paths of Ray's sockets would be too long.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    file = folder / "serve.yaml"
    file.write_text(yaml.safe_dump(config))
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(folder)}
    program = Path(sys.executable).parent / "serve"
    os.execv(program, [str(program), "run", str(file)])


if __name__ == "__main__":
    main(sys.argv[1:])
