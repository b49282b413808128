"""Watches that the servers keep their model while rows are scored."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fivescore.client.served import Served
from fivescore.errors import ConfigurationError, FivescoreError
from fivescore.labelling.answers import Answers, NoAnswers
from fivescore.labelling.run import description, difference

WATCH_SECONDS = 60.0
"""Seconds between two looks at what the servers serve."""
DIGEST_SECONDS = 5.0
"""The same while a digest is missing: a server reads a large model's files for minutes."""


class Watch:
    """What the servers serve, by the description of a run.

    Args:
        about: the description at the start of the run.
        served: asks what they serve, with retries for the given seconds; blocks.
    """

    def __init__(
        self,
        about: Mapping[str, Any],
        served: Callable[[float], Served],
        answers: Answers | NoAnswers,
    ) -> None:
        self.about = about
        """The newest description: it may have the digest that the first one lacked."""
        self._served, self._answers = served, answers
        self._fault: ConfigurationError | None = None

    async def look(self, retry_seconds: float) -> None:
        """Compare what is served now with the description.

        Raises:
            ConfigurationError: the model is another one; the scores so far cannot be used.
            FivescoreError: a server does not answer.
        """
        served = await asyncio.to_thread(self._served, retry_seconds)
        now = description(served, self.about["options"])
        if differs := difference(self.about, now):
            self._answers.refuse()
            self._fault = ConfigurationError(
                f"the servers got another model while the rows were scored: {differs}; the scores"
                f" are of both, so {self._answers.path or 'they'} cannot be used: start over"
            )
            raise self._fault
        if self.about["digest"] is None and now["digest"] is not None:
            self.about = now
            self._answers.describe(now)

    def check(self) -> None:
        """Raise what the last look has found.

        Raises:
            ConfigurationError: as ``look``.
        """
        if self._fault is not None:
            raise self._fault

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """Look now and then; what is found is for ``check``."""
        task = asyncio.create_task(self._look_again())
        try:
            yield
        finally:
            task.cancel()

    async def _look_again(self) -> None:
        while self._fault is None:
            await asyncio.sleep(WATCH_SECONDS if self.about["digest"] else DIGEST_SECONDS)
            with contextlib.suppress(FivescoreError):  # of a server that is away requests tell
                await self.look(0.0)
