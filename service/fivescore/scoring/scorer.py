"""The path of a pair: admit, render, tokenise, engine, attributes, reward. Knows no HTTP."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from fivescore.errors import (
    DeadlineExceeded,
    FivescoreError,
    InvalidPair,
    NonFinite,
    Overloaded,
    ScoringError,
    TooLong,
    TooManyPairs,
)
from fivescore.model import reward
from fivescore.model.checkpoint import Model
from fivescore.scoring.admission import Admission, Admitted
from fivescore.scoring.batching import Batcher
from fivescore.scoring.chunks import CHUNK_CHARACTERS, CHUNK_PAIRS, Placed, chunks, placed
from fivescore.scoring.fairness import Fairness, Share
from fivescore.scoring.inflight import Flight, Flights, Group
from fivescore.scoring.lifecycle import Service
from fivescore.scoring.truncation import keep_end, shorten
from fivescore.scoring.window import Room, Window
from fivescore.telemetry.logging import log_texts
from fivescore.telemetry.trace import Trace
from fivescore.types import Output, Pair, Score

log = logging.getLogger(__name__)

CHARACTERS_A_TOKEN = 4
"""The average of English text; estimates the tokens of texts that are not tokenised yet."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a request may choose.

    ``weights`` combine the attributes instead of the manifest's; ``truncate="prompt_start"`` drops
    the oldest tokens of a pair that is too long, and keeps its end; ``max_tokens`` is a limit below
    the model's; ``timeout_seconds`` is the request's own deadline; a lower ``priority`` runs first.
    """

    weights: Mapping[str, float] | None = None
    truncate: Literal["never", "prompt_start"] = "never"
    timeout_seconds: float | None = None
    max_tokens: int | None = None
    priority: int = 0


_Results = list[Score | FivescoreError | None]
"""A request's results by place; None where there is none yet."""


class _Encoded(NamedTuple):
    """A pair's token ids or its error, and when its batch was rendered and tokenised."""

    ids: list[int] | InvalidPair
    rendered: float
    done: float


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
    trace: Trace
    admitted: Admitted
    share: Share
    results: _Results
    submitted: float | None = None
    """When the first sequence went to the engine, by ``time.perf_counter``; None before that."""
    not_finite: list[_Sequence] = field(default_factory=list)


class Scorer:
    """Scores pairs with the model of one service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._settings = settings = service.settings
        self._metrics = metrics = service.metrics
        self._admission = Admission(settings.max_inflight_pairs, settings.max_inflight_tokens)
        self._fairness = Fairness()
        self._window = Window()
        self._flights = Flights(self._encode_in_engine, self._window.leave)
        work = self._render_and_tokenise
        self._tokenise = Batcher(work, CHUNK_PAIRS, CHUNK_CHARACTERS)
        self._tokenise_here = Batcher(work, CHUNK_PAIRS, 0, on_loop=True)
        metrics.inflight.set_function(lambda: self._admission.inflight)
        metrics.inflight_tokens.set_function(lambda: self._admission.tokens)
        metrics.inflight_limit.labels("pairs").set_function(lambda: self._admission.limit)
        metrics.inflight_limit.labels("tokens").set_function(lambda: self._admission.token_limit)

    async def load(self) -> None:
        """Load the service, and fit the limits to its model before the first request is taken.

        Raises:
            ConfigurationError: the model cannot be loaded.
        """
        await self.service.load(self._fit)

    def _fit(self, model: Model) -> None:
        self._admission.fit(model.info)
        self._window.fit(model.info.step_sequences)
        self._tokenise_here.most_size = model.conversation.tokenizer.quick_characters

    async def drained(self) -> None:
        """Wait until every admitted pair is answered."""
        await self._admission.idle.wait()

    async def close(self) -> None:
        """Stop the tokeniser's thread and the service."""
        self._tokenise.close()
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
        with self._admission.admit(len(pairs)) as admitted:
            well_formed = placed(pairs)
            admitted.expect(sum(map(_expected_tokens, well_formed)))
            trace.add("admit", asked, time.perf_counter())
            share = self._fairness.share(options.priority)
            results: _Results = [one if isinstance(one, InvalidPair) else None for one in pairs]
            request = _Request(model, options, trace, admitted, share, results)
            async with _deadline(options.timeout_seconds):
                await self._score_all(well_formed, request)
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
        return model

    async def _score_all(self, pairs: Sequence[Placed], request: _Request) -> None:
        """Submit all pairs chunk by chunk and collect their answers in the order of submission."""
        waiting = deque[_Sequence]()
        with self._reported(request), self._flights.group() as flights:
            for chunk in chunks(pairs):
                async with await self._room(chunk, request) as room:
                    ids = await self._token_ids(chunk, request)
                    for one, encoded in zip(chunk, ids, strict=True):
                        sequence = self._submit(one, encoded, request, flights, room)
                        if isinstance(sequence, FivescoreError):
                            request.results[one.place] = sequence
                        else:
                            waiting.append(sequence)
                # If the engine is lost, this raises before more is tokenised for nothing.
                while waiting and waiting[0].flight.answer.done():
                    await self._finish(waiting.popleft(), request)
            for sequence in waiting:
                await self._finish(sequence, request)

    async def _room(self, chunk: Sequence[Placed], request: _Request) -> Room:
        """Room for a chunk: the first passes by those who wait for it, later ones queue."""
        if request.submitted is None:
            return self._window.room(len(chunk))
        await asyncio.sleep(0)  # the chunk before goes to the engine; others have their turn
        return self._window.room(len(chunk), request.share.priority)

    async def _token_ids(
        self, chunk: Sequence[Placed], request: _Request
    ) -> list[list[int] | FivescoreError]:
        """Each pair's ids or error, in order; those that need the tokeniser go to it together."""
        ids = [_known_ids(request.model, one, request.options) for one in chunk]
        unknown = [one for one, known in zip(chunk, ids, strict=True) if known is None]
        if not unknown:
            return [known for known in ids if known is not None]
        most = request.model.max_characters
        size = sum(min(one.characters, most) for one in unknown)
        texts = [
            shorten(one.pair, one.characters - most) if one.characters > most else one.pair
            for one in unknown
        ]
        asked = time.perf_counter()
        here = size <= self._tokenise_here.most_size
        encoded = await (self._tokenise_here if here else self._tokenise)(texts, size)
        first = encoded[0]
        request.trace.add("render", asked, first.rendered)
        request.trace.add("tokenise", first.rendered, first.done)
        found = iter(encoded)
        return [next(found).ids if known is None else known for known in ids]

    def _render_and_tokenise(self, pairs: list[Pair]) -> list[_Encoded]:
        conversation = self.service.model.conversation
        texts = conversation.render(pairs)
        rendered = time.perf_counter()
        ids = conversation.tokenise(texts)
        done = time.perf_counter()
        return [_Encoded(one, rendered, done) for one in ids]

    def _submit(
        self,
        one: Placed,
        encoded: list[int] | FivescoreError,
        request: _Request,
        flights: Group,
        room: Room,
    ) -> _Sequence | FivescoreError:
        """Hand one pair to the engine; its error where it cannot be scored as it is."""
        if isinstance(encoded, FivescoreError):
            return encoded
        ids = _fitting(encoded, request.model, request.options)
        if isinstance(ids, FivescoreError):
            return ids
        if request.submitted is None:
            request.submitted = time.perf_counter()
        request.admitted.add_tokens(len(ids), _expected_tokens(one))
        tag, priority = request.share.next(len(ids))
        trace = request.trace
        flight = flights.join(
            ids,
            f"{trace.request_id}-{one.place}",
            trace.engine_headers(one.place),
            priority,
            room.hand_over,
        )
        cut = ids is not encoded or one.characters > request.model.max_characters
        return _Sequence(one.place, len(ids), cut, tag, flight)

    def _encode_in_engine(
        self,
        token_ids: list[int],
        request_id: str,
        trace_headers: Mapping[str, str] | None,
        priority: int,
    ) -> Coroutine[Any, Any, Output]:
        return self.service.engine.encode(token_ids, request_id, trace_headers, priority)

    async def _finish(self, sequence: _Sequence, request: _Request) -> None:
        """Wait for one answer and put its score, or its error, in its place."""
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

    @contextmanager
    def _reported(self, request: _Request) -> Iterator[None]:
        """Report at the end, however it comes, the engine's stage and what was not finite."""
        try:
            yield
        finally:
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


@asynccontextmanager
async def _deadline(seconds: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds) as deadline:
            yield
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise DeadlineExceeded(
            f"timeout_seconds: the deadline of {seconds} s passed;"
            " send fewer pairs or allow more time"
        ) from error


def _fitting(ids: list[int], model: Model, options: Options) -> list[int] | FivescoreError:
    """The ids themselves where the engine can take them, a cut copy where they may be truncated,
    and otherwise the pair's error."""
    if not ids:
        return InvalidPair("the pair has no tokens: there is nothing to score")
    if (highest := max(ids)) >= model.info.vocab_size:
        return InvalidPair(
            f"token id {highest} is not in the model's vocabulary"
            f" (0 to {model.info.vocab_size - 1})",
            limit=model.info.vocab_size - 1,
        )
    limit = min(model.max_tokens, options.max_tokens or model.max_tokens)
    if len(ids) <= limit:
        return ids
    if options.truncate == "never":
        return TooLong(
            f"the pair has {len(ids)} tokens, the limit is {limit}: shorten it or"
            ' set truncate to "prompt_start"',
            limit=limit,
            tokens=len(ids),
        )
    return keep_end(ids, limit, model.conversation.tokenizer.bos_id)


def _expected_tokens(one: Placed) -> int:
    ids = one.pair.token_ids
    return one.characters // CHARACTERS_A_TOKEN if ids is None else len(ids)


def _known_ids(model: Model, one: Placed, options: Options) -> list[int] | FivescoreError | None:
    """The ids or the error that a pair has without the tokeniser; None when it needs it."""
    if one.pair.token_ids is not None:
        return one.pair.token_ids
    length = one.characters
    if length <= model.max_characters or options.truncate == "prompt_start":
        return None
    return TooLong(
        f"the pair has {length} characters, the limit is {model.max_characters}: shorten it or"
        ' set truncate to "prompt_start"',
        limit=model.max_characters,
        characters=length,
    )
