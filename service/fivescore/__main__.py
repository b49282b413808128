"""``python -m fivescore`` is the ``fivescore`` command."""

from fivescore.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
