"""fivescore: a reward-model service for RLHF trainers, and its client."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fivescore")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
