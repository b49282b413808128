"""One environment for a trainer, over the one that fivescore is installed in.

``python -m tests.trainers.environments openrlhf`` makes ``.trainers/openrlhf`` of the lock file
``tests/trainers/openrlhf.txt``. What the lock file has comes first, so a trainer may need another
transformers than the server.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1] / ".trainers"
DONE, REASON = ".installed", ".reason"


def python(name: str) -> Path:
    """The Python of a trainer's environment."""
    return ROOT / name / "bin" / "python"


def missing(name: str) -> str | None:
    """Why a trainer cannot be run here; None where it can."""
    folder = ROOT / name
    if (folder / DONE).exists():
        return None
    if (folder / REASON).exists():
        return (folder / REASON).read_text()
    return "'make trainers' makes its environment"


def make(name: str) -> None:
    """Make an environment, or leave the reason why it could not be made."""
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=False)
    lock = str(HERE / f"{name}.txt")
    pip = [sys.executable, "-m", "pip", "--python", str(python(name)), "install", "--no-deps"]
    done = subprocess.run([*pip, "-r", lock], capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        (folder / REASON).write_text(f"pip: {(errors or done.stderr.splitlines())[-1]}")
        return
    ours = sysconfig.get_paths()["purelib"]
    line = f"import site; site.addsitedir({ours!r})\n"
    own = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    Path(own, "zz-fivescore.pth").write_text(line)
    (folder / DONE).touch()


def up_to_date(name: str) -> bool:
    """Whether a trainer's environment is that of its lock file."""
    done = ROOT / name / DONE
    return done.exists() and done.stat().st_mtime >= (HERE / f"{name}.txt").stat().st_mtime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.trainers.environments")
    parser.add_argument("names", nargs="*", metavar="TRAINER", help="[all]")
    for wanted in parser.parse_args().names or sorted(path.stem for path in HERE.glob("*.txt")):
        if not up_to_date(wanted):
            make(wanted)
        print(f"{wanted}: {missing(wanted) or 'ready'}")
