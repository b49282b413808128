"""The path of a pair: admission, token ids, engine, attributes, reward. Knows no HTTP."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from fivescore.errors import (
    DeadlineExceeded,
    FivescoreError,
    InvalidPair,
    InvalidRequest,
    NonFinite,
    Overloaded,
    ScoringError,
    TooManyPairs,
)
from fivescore.model import reward
from fivescore.model.checkpoint import Model
from fivescore.model.conversation import NO_PRINCIPLE
from fivescore.scoring.admission import Admission, Admitted
from fivescore.scoring.breaks import Breaks, emptied
from fivescore.scoring.chunks import CHUNK_PAIRS, Placed, check_repeated, chunks, placed
from fivescore.scoring.fairness import Fairness, Share
from fivescore.scoring.inflight import Flight, Flights, Group
from fivescore.scoring.lifecycle import Service
from fivescore.scoring.tokenising import Ids, PairTokenizer, crowded, expected_tokens, fitting
from fivescore.scoring.window import Room, Window
from fivescore.telemetry.logging import log_texts
from fivescore.telemetry.trace import Trace
from fivescore.types import Output, Pair, Score

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What a request may choose."""

    weights: Mapping[str, float] | None = None
    """The attributes' weights in the reward, instead of the manifest's."""
    truncate: Literal["never", "prompt_start"] = "never"
    """``prompt_start`` drops the oldest tokens of a pair that is too long, and keeps its end."""
    timeout_seconds: float | None = None
    """The request's own deadline."""
    max_tokens: int | None = None
    """A limit of tokens per pair, below the model's."""
    priority: int = 0
    """Requests with a lower number run first."""
    principle: str | None = None
    """What pairs are judged by that have no principle of their own."""


_Results = list[Score | FivescoreError | None]
"""A request's results by place; None where there is none yet."""


class _Sequence(NamedTuple):
    """One pair on its way: its place in the request, its length and its work in the engine."""

    place: int
    tokens: int
    truncated: bool
    tag: int
    flight: Flight


@dataclass(slots=True)
class _Request:
    """One admitted request, and what has become of it so far."""

    model: Model
    options: Options
    limit: int
    """The most tokens per pair."""
    cut: bool
    """Whether pairs that are too long lose their start, instead of being refused."""
    trace: Trace
    admitted: Admitted
    share: Share
    results: _Results
    submitted: float | None = None
    """When the first sequence was submitted (``perf_counter``, seconds); None before that."""
    not_finite: list[_Sequence] = field(default_factory=list)


class Scorer:
    """Scores pairs with the model of one service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._settings = settings = service.settings
        self._metrics = metrics = service.metrics
        self._admission = admission = Admission(
            settings.max_inflight_pairs, settings.max_inflight_tokens
        )
        self._fairness = Fairness()
        self._window = Window()
        self._flights = Flights(service.encode, self._window.leave)
        self._tokenizer = PairTokenizer(service)
        metrics.inflight.set_function(lambda: admission.inflight)
        metrics.inflight_tokens.set_function(lambda: admission.tokens)
        metrics.inflight_limit.labels("pairs").set_function(lambda: admission.limit)
        metrics.inflight_limit.labels("tokens").set_function(lambda: admission.token_limit)

    async def load(self) -> None:
        """Load the service, and derive the limits from its model before it takes requests.

        Raises:
            ConfigurationError: the model cannot be loaded.
        """
        await self.service.load(self._fit)

    def _fit(self, model: Model) -> None:
        self._admission.fit(model.info)
        self._window.fit(model.info.ranks * model.info.step_sequences)
        self._tokenizer.fit(model)

    async def drained(self) -> None:
        """Wait until every admitted pair is answered."""
        await self._admission.idle.wait()

    async def close(self) -> None:
        """Stop the tokenizer's thread and the service."""
        self._tokenizer.close()
        await self.service.close()

    async def score(
        self,
        pairs: Sequence[Pair | InvalidPair],
        options: Options = Options(),
        trace: Trace | None = None,
    ) -> list[Score | FivescoreError]:
        """Score pairs.

        Returns one entry per pair, in order: its score or its own error. A pair that was found
        malformed before keeps its error in its place. ``trace`` brings the request's id, and its
        stages are added to it.

        Raises:
            TooManyPairs, InvalidRequest: the request cannot be served as it is.
            ServiceUnavailable: the service cannot take it now.
            DeadlineExceeded: ``options.timeout_seconds`` passed; its work was aborted.
        """
        trace = trace or Trace()
        if self._settings.log_texts:
            log_texts(pairs, trace.request_id)
        outcomes = {"internal_error": len(pairs)}
        try:
            results = await self._admit_and_score(pairs, options, trace)
            outcomes = Counter("ok" if isinstance(r, Score) else r.code for r in results)
            return results
        except FivescoreError as error:
            outcomes = {error.code: len(pairs)}
            if isinstance(error, Overloaded):
                self._metrics.rejections.labels(error.reason).inc()
            raise
        except asyncio.CancelledError:
            outcomes = {"cancelled": len(pairs)}
            raise
        finally:
            for outcome, count in outcomes.items():
                self._metrics.pairs.labels(outcome).inc(count)
            self._metrics.traced(trace)

    async def _admit_and_score(
        self, pairs: Sequence[Pair | InvalidPair], options: Options, trace: Trace
    ) -> list[Score | FivescoreError]:
        asked = time.perf_counter()
        model = self._check(len(pairs), options)
        self._metrics.request_pairs.observe(len(pairs))
        limit = min(model.max_tokens, options.max_tokens or model.max_tokens)
        principle = self._principle(len(pairs), model, options)
        well_formed = await placed(pairs, principle)
        expected = sum(expected_tokens(one, limit) for one in well_formed)
        # An error keeps this frame until it is answered, and must not keep thousands of pairs.
        with emptied(well_formed), self._admission.admit(len(pairs), expected) as admitted:
            trace.add("admit", asked, time.perf_counter())
            share = self._fairness.share(options.priority)
            results: _Results = [one if isinstance(one, InvalidPair) else None for one in pairs]
            cut = options.truncate == "prompt_start"
            request = _Request(model, options, limit, cut, trace, admitted, share, results)
            try:
                async with asyncio.timeout(options.timeout_seconds) as deadline:
                    await self._score_all(well_formed, request)
            except TimeoutError as error:
                if not deadline.expired():
                    raise
                raise DeadlineExceeded(
                    f"timeout_seconds: the deadline of {options.timeout_seconds} s passed;"
                    " send fewer pairs or allow more time"
                ) from error
        return [result for result in results if result is not None]

    def _check(self, pairs: int, options: Options) -> Model:
        model = self.service.check_available()
        if pairs > self._settings.max_pairs:
            raise TooManyPairs(
                f"pairs: {pairs} in one request, the limit is {self._settings.max_pairs}"
                " (max_pairs): split it",
                limit=self._settings.max_pairs,
            )
        if options.weights is not None:
            reward.check_weights(options.weights, model.manifest)
        if options.principle is not None and model.manifest.prompt.principle is None:
            raise InvalidRequest(NO_PRINCIPLE)
        return model

    def _principle(self, pairs: int, model: Model, options: Options) -> str | None:
        """The request's principle, or else the setting's; None for a model that takes none.

        Raises:
            BodyTooLarge: it is too long for so many pairs.
        """
        principle = options.principle or self._settings.principle
        if principle is None or model.manifest.prompt.principle is None:
            return None
        check_repeated("principle", len(principle), pairs)
        return principle

    async def _score_all(self, pairs: Sequence[Placed], request: _Request) -> None:
        """Submit all pairs chunk by chunk, and collect their answers in the order of submission."""
        admitted = request.admitted
        waiting = deque[_Sequence]()
        try:
            with self._flights.group() as flights:
                for chunk in chunks(pairs):
                    async with self._room(chunk, request) as room:
                        ids = await self._tokenizer.token_ids(chunk, request.cut, request.trace)
                        for one, encoded in zip(chunk, ids, strict=True):
                            sequence = self._submit(one, encoded, request, flights, room)
                            if isinstance(sequence, FivescoreError):
                                request.results[one.place] = sequence
                                admitted.expect(-expected_tokens(one, request.limit))
                            else:
                                waiting.append(sequence)
                    if request.submitted is None:  # so the next chunk does not wait for room
                        await asyncio.sleep(0)
                    # If the engine is lost, this raises before more is tokenised for nothing.
                    while waiting and waiting[0].flight.landed:
                        await self._finish(waiting.popleft(), request)
                breaks = Breaks(CHUNK_PAIRS)
                for sequence in waiting:
                    await self._finish(sequence, request)
                    await breaks.after(1)
        finally:
            self._report(request)

    def _room(self, chunk: Sequence[Placed], request: _Request) -> Room:
        """Room for a chunk: a request's first passes by those who wait for it, later ones queue."""
        priority = None if request.submitted is None else request.share.priority
        return self._window.room(len(chunk), priority)

    def _submit(
        self, one: Placed, encoded: Ids, request: _Request, flights: Group, room: Room
    ) -> _Sequence | FivescoreError:
        """Hand one pair to the engine; returns its error where it cannot be scored as it is."""
        if isinstance(encoded, FivescoreError):
            return encoded
        model, trace = request.model, request.trace
        ids = fitting(encoded, model, request.limit, request.cut)
        if isinstance(ids, FivescoreError):
            return ids
        truncated = len(ids) < len(encoded) or one.characters > model.max_characters
        if truncated and (error := crowded(one.pair, model, request.limit)):
            return error
        if request.submitted is None:
            request.submitted = time.perf_counter()
        request.admitted.add_tokens(len(ids), expected_tokens(one, request.limit))
        tag, priority = request.share.next(len(ids))
        headers = trace.engine_headers(one.place)
        name = f"{trace.request_id}-{one.place}"
        flight = flights.join(ids, name, headers, priority, one.prefix, room.hand_over)
        return _Sequence(one.place, len(ids), truncated, tag, flight)

    async def _finish(self, sequence: _Sequence, request: _Request) -> None:
        """Wait for one answer, and put its score or its error in its place of the results."""
        try:
            output = await sequence.flight.wait()
            self._fairness.served(sequence.tag)
            request.results[sequence.place] = self._score_of(output, sequence, request)
        except ScoringError as error:
            request.results[sequence.place] = error
            if isinstance(error, NonFinite):
                request.not_finite.append(sequence)

    def _score_of(self, output: Output, sequence: _Sequence, request: _Request) -> Score:
        began = time.perf_counter()
        try:
            score = reward.score(
                output.values,
                request.model.manifest,
                request.options.weights,
                tokens=sequence.tokens,
                cached_tokens=output.cached_tokens,
                truncated=sequence.truncated,
            )
        finally:
            request.trace.add("reward", began, time.perf_counter())
        self._metrics.scored(score)
        return score

    def _report(self, request: _Request) -> None:
        """Report the time in the engine, and the outputs that are not finite."""
        if request.submitted is not None:
            request.trace.add("engine", request.submitted, time.perf_counter())
        if request.not_finite:
            self._report_not_finite(request)

    def _report_not_finite(self, request: _Request) -> None:
        for sequence in request.not_finite:
            error = request.results[sequence.place]
            assert isinstance(error, NonFinite)
            for name in error.names:
                self._metrics.non_finite.labels(name).inc()
        first = request.not_finite[0]
        log.error(
            "request %(request_id)s: %(pairs)d pairs with outputs that are not finite; the"
            " first, pair %(pair)d, has %(tokens)d tokens, sha256 %(sha256)s",
            {
                "request_id": request.trace.request_id,
                "pairs": len(request.not_finite),
                "pair": first.place,
                "tokens": first.tokens,
                "sha256": first.flight.key.hex(),
            },
        )
