"""The heart: admit, render, tokenise, engine, attributes, reward. Knows no HTTP."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
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
from fivescore.scoring.inflight import Flight, Flights
from fivescore.scoring.lifecycle import Lifecycle, MakeEngine
from fivescore.scoring.truncation import keep_end, shorten
from fivescore.scoring.window import Window
from fivescore.settings import Settings
from fivescore.telemetry.logging import log_texts
from fivescore.telemetry.metrics import Metrics
from fivescore.telemetry.trace import Trace
from fivescore.types import Output, Pair, Score

log = logging.getLogger(__name__)

CHARACTERS_A_TOKEN = 4
"""What tokenisers average on English text: of texts that are not tokenised yet."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a request may choose.

    ``weights`` combine the attributes instead of the manifest's; ``truncate="prompt_start"`` drops
    the oldest tokens of a pair that is too long, and keeps its end; ``max_tokens`` is a limit below
    the model's; ``timeout_seconds`` is the request's own deadline; a lower ``priority`` goes first.
    """

    weights: Mapping[str, float] | None = None
    truncate: Literal["never", "prompt_start"] = "never"
    timeout_seconds: float | None = None
    max_tokens: int | None = None
    priority: int = 0


_Results = list[Score | FivescoreError | None]
"""Of a request, by place; None where there is none yet."""


class _Encoded(NamedTuple):
    """A pair's token ids or its error; when its batch was rendered, and tokenised."""

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


class _Work(NamedTuple):
    """One admitted request."""

    model: Model
    options: Options
    trace: Trace
    admitted: Admitted
    share: Share


class Scorer(Lifecycle):
    """Scores pairs with one model."""

    def __init__(
        self,
        settings: Settings,
        make_engine: MakeEngine,
        metrics: Metrics,
        loaded: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(settings, make_engine, metrics, loaded)
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

    def _fit(self, model: Model) -> None:
        self._admission.fit(model.info)
        self._window.fit(model.info.step_sequences)
        self._tokenise_here.most_size = model.conversation.tokenizer.quick_characters

    async def drained(self) -> None:
        """Wait until no accepted pair is unanswered."""
        await self._admission.idle.wait()

    async def close(self) -> None:
        self._tokenise.close()
        await super().close()

    async def score(
        self,
        pairs: Sequence[Pair | InvalidPair],
        options: Options = Options(),
        trace: Trace | None = None,
    ) -> list[Score | FivescoreError]:
        """Score pairs; the answer has one entry a pair, in order: its score or its own error.

        A pair that was found malformed before keeps its error in its place. ``trace`` has the
        request's id, and gets its stages.

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
            results = await self._score_admitted(pairs, options, trace)
            outcomes = Counter("ok" if isinstance(r, Score) else r.code for r in results)
            return results
        except FivescoreError as error:
            outcomes = {error.code: len(pairs)}
            if isinstance(error, Overloaded):
                self.metrics.rejections.labels(error.reason).inc()
            raise
        except asyncio.CancelledError:
            outcomes = {"cancelled": len(pairs)}
            raise
        finally:
            for outcome, count in outcomes.items():
                self.metrics.pairs.labels(outcome).inc(count)
            self.metrics.traced(trace)

    async def _score_admitted(
        self, pairs: Sequence[Pair | InvalidPair], options: Options, trace: Trace
    ) -> list[Score | FivescoreError]:
        asked = time.perf_counter()
        model = self.check_available()
        if len(pairs) > self._settings.max_pairs:
            raise TooManyPairs(
                f"pairs: {len(pairs)} in one request, the limit is {self._settings.max_pairs}"
                " (max_pairs): split it",
                limit=self._settings.max_pairs,
            )
        if options.weights is not None:
            reward.check_weights(options.weights, model.manifest)
        self.metrics.request_pairs.observe(len(pairs))
        with self._admission.admit(len(pairs)) as admitted:
            well_formed = placed(pairs)
            admitted.expect(sum(map(_expected_tokens, well_formed)))
            trace.add("admit", asked, time.perf_counter())
            share = self._fairness.share(options.priority)
            work = _Work(model, options, trace, admitted, share)
            results: _Results = [one if isinstance(one, InvalidPair) else None for one in pairs]
            try:
                async with asyncio.timeout(options.timeout_seconds) as deadline:
                    await self._score_all(well_formed, work, results)
            except TimeoutError as error:
                if not deadline.expired():
                    raise
                raise DeadlineExceeded(
                    f"timeout_seconds: the deadline of {options.timeout_seconds} s passed;"
                    " send fewer pairs or allow more time"
                ) from error
        return [result for result in results if result is not None]

    async def _score_all(self, pairs: Sequence[Placed], work: _Work, results: _Results) -> None:
        started: list[_Sequence] = []
        submitted, finished = 0.0, 0
        try:
            for chunk in chunks(pairs):
                handed_over = await self._start(chunk, work, results, started)
                submitted = submitted or handed_over
                # If the engine is lost, this raises before more is tokenised for nothing.
                while finished < len(started) and started[finished].flight.task.done():
                    await self._finish(started[finished], work, results)
                    finished += 1
            for sequence in started[finished:]:
                await self._finish(sequence, work, results)
        finally:
            self._tell_non_finite(results, started, work)
            if started:
                work.trace.add("engine", submitted, time.perf_counter())
            for sequence in started:
                self._flights.leave(sequence.flight)

    async def _start(
        self, chunk: Sequence[Placed], work: _Work, results: _Results, started: list[_Sequence]
    ) -> float:
        """Tokenise some pairs and hand them over, when there is room; when that was."""
        if started:
            await asyncio.sleep(0)  # the chunk before goes to the engine; others have their turn
            await self._window.enter(len(chunk), work.share.priority)
        else:
            self._window.pass_by(len(chunk))
        flights = 0
        try:
            ids = await self._token_ids(chunk, work)
            handed_over = time.perf_counter()
            for one, encoded in zip(chunk, ids, strict=True):
                sequence = self._submit(one, encoded, work)
                if isinstance(sequence, FivescoreError):
                    results[one.place] = sequence
                else:
                    started.append(sequence)
                    flights += sequence.flight.waiters == 1
        finally:
            self._window.leave(len(chunk) - flights)
        return handed_over

    async def _token_ids(
        self, chunk: Sequence[Placed], work: _Work
    ) -> list[list[int] | FivescoreError]:
        most = work.model.max_characters
        ids = [_known_ids(work.model, one, work.options) for one in chunk]
        unknown = [one for one, known in zip(chunk, ids, strict=True) if known is None]
        if not unknown:
            return [known for known in ids if known is not None]
        size = sum(min(one.characters, most) for one in unknown)
        texts = [
            shorten(one.pair, one.characters - most) if one.characters > most else one.pair
            for one in unknown
        ]
        asked = time.perf_counter()
        here = size <= self._tokenise_here.most_size
        encoded = await (self._tokenise_here if here else self._tokenise)(texts, size)
        first = encoded[0]
        work.trace.add("render", asked, first.rendered)
        work.trace.add("tokenise", first.rendered, first.done)
        found = iter(encoded)
        return [next(found).ids if known is None else known for known in ids]

    def _render_and_tokenise(self, pairs: list[Pair]) -> list[_Encoded]:
        conversation = self.model.conversation
        texts = conversation.render(pairs)
        rendered = time.perf_counter()
        ids = conversation.tokenise(texts)
        done = time.perf_counter()
        return [_Encoded(one, rendered, done) for one in ids]

    def _submit(
        self, one: Placed, ids: list[int] | FivescoreError, work: _Work
    ) -> _Sequence | FivescoreError:
        model, options = work.model, work.options
        if isinstance(ids, FivescoreError):
            return ids
        if not ids:
            return InvalidPair("the pair has no tokens: there is nothing to score")
        if (highest := max(ids)) >= model.info.vocab_size:
            return InvalidPair(
                f"token id {highest} is not in the model's vocabulary"
                f" (0 to {model.info.vocab_size - 1})",
                limit=model.info.vocab_size - 1,
            )
        limit = min(model.max_tokens, options.max_tokens or model.max_tokens)
        too_long = len(ids) > limit
        if too_long and options.truncate == "never":
            return TooLong(
                f"the pair has {len(ids)} tokens, the limit is {limit}: shorten it or"
                ' set truncate to "prompt_start"',
                limit=limit,
                tokens=len(ids),
            )
        if too_long:
            ids = keep_end(ids, limit, model.conversation.tokenizer.bos_id)
        truncated = too_long or one.characters > model.max_characters
        work.admitted.add_tokens(len(ids), _expected_tokens(one))
        trace = work.trace
        headers = trace.engine_headers(one.place)
        tag, priority = work.share.next(len(ids))
        flight = self._flights.join(ids, f"{trace.request_id}-{one.place}", headers, priority)
        return _Sequence(one.place, len(ids), truncated, tag, flight)

    def _encode_in_engine(
        self,
        token_ids: list[int],
        request_id: str,
        trace_headers: Mapping[str, str] | None,
        priority: int,
    ) -> Coroutine[Any, Any, Output]:
        assert self._engine is not None
        return self._engine.encode(token_ids, request_id, trace_headers, priority)

    async def _finish(self, sequence: _Sequence, work: _Work, results: _Results) -> None:
        try:
            output = await sequence.flight.wait()
            self._fairness.served(sequence.tag)
            results[sequence.place] = self._read(output, sequence, work)
        except ScoringError as error:
            results[sequence.place] = error

    def _read(self, output: Output, sequence: _Sequence, work: _Work) -> Score:
        began = time.perf_counter()
        try:
            score = reward.score(
                output.values,
                work.model.manifest,
                work.options.weights,
                tokens=sequence.tokens,
                cached_tokens=output.cached_tokens,
                truncated=sequence.truncated,
            )
        finally:
            work.trace.add("reward", began, time.perf_counter())
        self.metrics.scored(score)
        return score

    def _tell_non_finite(
        self,
        results: _Results,
        started: Sequence[_Sequence],
        work: _Work,
    ) -> None:
        bad = [one for one in started if isinstance(results[one.place], NonFinite)]
        for sequence in bad:
            error = results[sequence.place]
            assert isinstance(error, NonFinite)
            for name in error.names:
                self.metrics.non_finite.labels(name).inc()
        if bad:
            first = bad[0]
            log.error(
                "request %(request_id)s: %(pairs)d pairs with outputs that are not finite; the"
                " first, pair %(pair)d, has %(tokens)d tokens, sha256 %(sha256)s",
                {
                    "request_id": work.trace.request_id,
                    "pairs": len(bad),
                    "pair": first.place,
                    "tokens": first.tokens,
                    "sha256": first.flight.key.hex(),
                },
            )


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
