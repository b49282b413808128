"""A model and its engine from loading to closing, and whether requests are taken meanwhile."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from fivescore.engine.base import Engine
from fivescore.engine.supervisor import Limits, Supervisor
from fivescore.errors import Draining, EngineDead, Loading, ServiceUnavailable
from fivescore.model.checkpoint import Checkpoint, Model
from fivescore.model.head import OwnHead
from fivescore.model.identity import Identity
from fivescore.model.proof import Sample
from fivescore.scoring import proving
from fivescore.settings import Settings
from fivescore.telemetry.metrics import Metrics
from fivescore.types import ModelInfo, Output

log = logging.getLogger(__name__)

MakeEngine = Callable[[Settings, int | None, OwnHead | None], Engine]
State = Literal["loading", "ready", "restarting", "draining", "failed"]

HEARTBEAT_SECONDS = 10
"""Seconds between two log lines that say that the model is still loading."""
DIGEST_SECONDS = 0.5
"""How long a loaded model waits for its digest before it is ready without; small ones have it."""
RESTART_WINDOW_SECONDS = 600.0
"""The time over which new starts of the engine are counted."""


class Service:
    """Loads one model and its engine, and decides whether requests are taken.

    Args:
        make_engine: makes the engine from the settings, the limit of tokens and the manifest's
            head, which is None where it is one linear layer; on a thread.
        on_loaded: called once, when everything is loaded and before the first request is taken.
        on_failure: called once with the cause when the service cannot go on: the model could not
            be loaded, or the engine is lost for good.
    """

    def __init__(
        self,
        settings: Settings,
        make_engine: MakeEngine,
        metrics: Metrics,
        on_loaded: Callable[[], object] = lambda: None,
        on_failure: Callable[[Exception], object] = lambda error: None,
    ) -> None:
        self.metrics = metrics
        self.settings = settings
        self._make_engine = make_engine
        self._on_loaded = on_loaded
        self._on_failure = on_failure
        self._engine: Supervisor | None = None
        self._loaded: Model | None = None
        self._fitted: Model | None = None
        self._identity: Identity | None = None
        self._identified = asyncio.Event()
        self._digesting: asyncio.Task[None] | None = None
        self.digest: str | None = None
        """The digest of the model's files; None until it is known, and where it cannot be."""
        self._state: State = "loading"
        self._settled = asyncio.Event()

    @property
    def state(self) -> State:
        """The service's state."""
        return self._state

    def _enter(self, state: State) -> None:
        self._state = state
        self.metrics.state(state)
        if self.is_coming:
            self._settled.clear()
        else:
            self._settled.set()

    @property
    def is_coming(self) -> bool:
        """Whether an engine is being started for requests that wait."""
        return self._state in ("loading", "restarting")

    async def settled(self) -> None:
        """Wait until the engine runs, or none will any more."""
        await self._settled.wait()

    @property
    def has_model(self) -> bool:
        """Whether a model is loaded."""
        return self._loaded is not None

    @property
    def model(self) -> Model:
        """The loaded model.

        Raises:
            Loading: there is none yet.
        """
        if self._loaded is None:
            raise Loading("the model is not loaded yet: retry after 5 seconds", retry_after=5)
        return self._loaded

    async def load(self, fit: Callable[[Model], object] = lambda model: None) -> None:
        """Load the checkpoint and the engine, and become ready.

        ``fit`` is called with the model before the first request is taken.

        Raises:
            ConfigurationError: they cannot be loaded, or do not fit each other; ``on_failure`` has
                been called with it.
        """
        started = time.monotonic()
        log.info("loading %s", self.settings.model)
        heartbeat = asyncio.create_task(_log_heartbeat(started))
        try:
            model = await self._load_model()
            fit(model)
        except Exception as error:
            self._engine_failed(error)
            raise
        except BaseException:
            self._enter("failed")
            raise
        finally:
            heartbeat.cancel()
        self._loaded = model
        if self._digesting is not None:
            await asyncio.wait({self._digesting}, timeout=DIGEST_SECONDS)
        self._on_loaded()
        info, seconds = model.info, time.monotonic() - started
        attributes, revision = model.manifest.attributes, self.settings.revision
        self.metrics.loaded(
            info, attributes, revision, seconds,
            proved=model.proved, head=model.manifest.head.kind,
        )  # fmt: skip
        log.info(
            "ready after %.1f s: %s, %d outputs, %d tokens, %s on %s, %s",
            seconds, model.name, info.outputs, model.max_tokens, info.dtype,
            info.device, info.engine,
        )  # fmt: skip
        if self._state == "loading":
            self._enter("ready")

    async def _load_model(self) -> Model:
        self._identity = await asyncio.to_thread(Identity, self.settings)
        found = await asyncio.to_thread(Checkpoint, self.settings)
        samples = await asyncio.to_thread(found.samples)
        self._digesting = asyncio.create_task(self._read_digest(self._identity))
        self._engine = Supervisor(
            lambda: self._make_engine(self.settings, found.max_tokens, found.own_head),
            Limits(
                self.settings.engine_restarts,
                RESTART_WINDOW_SECONDS,
                self.settings.engine_hang_seconds,
            ),
            self._engine_changed,
            self._engine_failed,
            self._identity.look,
            partial(self._check, found, samples),
            self.metrics.escaped.inc,
        )
        info = await self._engine.load()
        for rank in range(info.ranks):
            tokens = partial(self._engine.tokens_in, rank)
            self.metrics.rank_tokens.labels(str(rank)).set_function(tokens)
        assert self._fitted is not None
        return self._fitted

    async def _check(
        self, found: Checkpoint, samples: Sequence[Sample], engine: Engine, info: ModelInfo
    ) -> None:
        """Look at a new engine before it is used: at its files, and at what it gives."""
        assert self._identity is not None
        await asyncio.to_thread(self._identity.look, loaded=True)
        if self._fitted is None:
            self._fitted = await asyncio.to_thread(found.fit, info)
        proved = await proving.prove(engine, self._fitted, samples, self.settings.model)
        self._fitted = replace(self._fitted, proved=proved)
        self._identified.set()

    async def _read_digest(self, identity: Identity) -> None:
        """Read the files beside the load; what a load brings from the hub is read after it."""
        await asyncio.to_thread(identity.digest)
        await self._identified.wait()
        self.digest = await asyncio.to_thread(identity.digest)
        if self.digest is None:
            log.warning("the model has no digest: a file could not be read, or was written since")
            return
        self.metrics.digest(self.digest)
        log.info("the model's digest is %s", self.digest)

    def encode(
        self,
        token_ids: list[int],
        request_id: str,
        trace_headers: Mapping[str, str] | None,
        priority: int,
        prefix: int,
    ) -> Coroutine[Any, Any, Output]:
        """The head's outputs at the last token, as ``Supervisor.encode``; needs a loaded model."""
        assert self._engine is not None
        return self._engine.encode(token_ids, request_id, trace_headers, priority, prefix)

    def check_available(self) -> Model:
        """The model, while requests are taken.

        Raises:
            ServiceUnavailable: requests are not taken; the error says why, and when to retry.
        """
        try:
            if self._state == "draining":
                raise Draining("the service is shutting down: send this to another replica")
            if self._state == "restarting" and self._engine is not None:
                raise self._engine.restarting()
            if self._state == "failed":
                raise EngineDead(
                    "the engine has stopped for good: send this to another replica", retry_after=10
                )
            return self.model
        except ServiceUnavailable as error:
            self.metrics.rejections.labels(error.code).inc()
            raise

    def _engine_changed(self, running: bool) -> None:
        if not running:
            self.metrics.restarts.inc()
        if self._state != "draining":
            self._enter("ready" if running else "restarting")

    def _engine_failed(self, error: Exception) -> None:
        self._enter("failed")
        self._on_failure(error)

    def drain(self) -> None:
        """Refuse new requests from now on; admitted ones finish."""
        self._enter("draining")

    async def close(self) -> None:
        """Stop the engine."""
        if self._identity is not None:
            self._identity.stop()
        if self._digesting is not None:
            self._digesting.cancel()
        if self._engine is not None:
            log.debug("the engine is being closed")
            await self._engine.close()


async def _log_heartbeat(started: float) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        log.info("still loading (%.0f s)", time.monotonic() - started)
