"""One environment for a trainer, over the one that fivescore is installed in.

``python -m tests.trainers.environments openrlhf`` makes ``.trainers/openrlhf`` of the lock file
``tests/trainers/openrlhf.txt``. What the lock file has comes first, so a trainer may need another
transformers than the server. What pip cannot install whole is checked out: a line
``# checkout OWNER/NAME@COMMIT FOLDER`` brings one folder of a repository of GitHub.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1] / ".trainers"
DONE, REASON = ".installed", ".reason"
CHECKOUT = re.compile(r"^# checkout (\S+)@(\S+) (\S+)$", re.MULTILINE)


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
    lock = HERE / f"{name}.txt"
    try:
        checkouts = [
            _checked_out(folder / "src" / repository, repository, *what)
            for repository, *what in CHECKOUT.findall(lock.read_text())
        ]
        pip = [sys.executable, "-m", "pip", "--python", str(python(name)), "install", "--no-deps"]
        # Its tests say whether a trainer that asks for another Python runs on the server's.
        _run(*pip, "--ignore-requires-python", "-r", str(lock))
    except OSError as failed:  # there is no git
        (folder / REASON).write_text(str(failed))
        return
    except subprocess.CalledProcessError as failed:
        lines = [line.strip() for line in failed.stderr.splitlines()]
        errors = [line for line in lines if line.startswith(("ERROR", "fatal:"))]
        reason = [str(failed), *lines, *errors][-1]
        (folder / REASON).write_text(f"{'git' if failed.cmd[0] == 'git' else 'pip'}: {reason}")
        return
    ours = sysconfig.get_paths()["purelib"]
    lines = [*map(str, checkouts), f"import site; site.addsitedir({ours!r})"]
    own = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    Path(own, "zz-fivescore.pth").write_text("\n".join(lines) + "\n")
    (folder / DONE).touch()


def _checked_out(into: Path, repository: str, commit: str, folder: str) -> Path:
    git = ["git", "-C", str(into)]
    address = f"https://github.com/{repository}"
    _run("git", "clone", "--quiet", "--no-checkout", "--filter=blob:none", address, str(into))
    _run(*git, "reset", "--quiet", "--soft", commit)  # which names what is checked out
    _run(*git, "checkout", "--quiet", commit, "--", folder)
    return into


def _run(*command: str) -> None:
    subprocess.run(command, capture_output=True, text=True, check=True)


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
