"""The module by which verifiers imports the judge, as docs/trainers.md has it."""

from fivescore.client.integrations.verifiers import FivescoreJudge as FivescoreJudge
from fivescore.client.integrations.verifiers import __all__ as __all__
