"""One call: built, admitted, sent, judged, repeated where that is safe, and read."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, Final, Generic, Self, TypeVar, cast

from attrs import evolve

from phygitals_async._api.operation import Operation
from phygitals_async._api.wire import Recognise
from phygitals_async._calls.admission import Admission
from phygitals_async._calls.answers import taking
from phygitals_async._calls.endings import complete, note_unknown_outcome, unlisted, with_truth
from phygitals_async._calls.engine import Engine
from phygitals_async._calls.lanes import Lane, Priority
from phygitals_async._calls.lookups import Run, current_lookup
from phygitals_async._calls.verdicts import Verdict, asked_pause, judge
from phygitals_async._checks import check_seconds
from phygitals_async.errors import (
    ClientClosed,
    DeadlineExceeded,
    NotAttempted,
    PhygitalsError,
    Sent,
)
from phygitals_async.observer import Attempt, Call, logger
from phygitals_async.transport import Delivery, Request, Response

T = TypeVar("T")

# The share of its deadline that a call that moves money or goods keeps for the answer.
_RESERVED: Final = 0.25


async def call(engine: Engine, operation: Operation[T], deadline: float | None, **arguments: object) -> T:
    """Make one call and return its result, or raise the `PhygitalsError` that tells why not."""
    exchange = await Exchange(engine, operation, deadline, arguments).send()
    return exchange.result()


class Exchange(Generic[T]):
    """One call, from its arguments to its result: `send` it, then take the `result`, or `drop` it.

    Whatever ends it ends it once: the observer is told, the error is complete, and what may have moved money or goods
    without an answer that tells comes out as `OutcomeUnknown`.

    Attributes:
        ends: When its deadline is, in seconds of the loop's clock; endless until its time has begun.
    """

    _admission: Admission
    _lane: Lane
    _response: Response
    _seconds: float
    _admitted_at: float
    _sent_at: float
    _verdict: Verdict
    _attempts = 0
    _failures = 0
    _call: Call | None = None
    _delivery: Delivery | None = None
    ends = math.inf
    _limited_at: float | None = None
    _last: PhygitalsError | None = None

    def __init__(
        self, engine: Engine, operation: Operation[T], deadline: float | None, arguments: Mapping[str, Any]
    ) -> None:
        self._engine = engine
        self._operation = operation
        self._deadline = deadline
        self._arguments = arguments
        self._irreversible = operation.effect.is_irreversible
        self._lookup = current_lookup.get()
        if self._irreversible:
            self._priority = Priority.MONEY
        else:
            self._priority = Priority.SINGLE if self._lookup is None else Priority.BULK
        if engine.hooks is not None:
            self._call = engine.hooks.begin(operation.name, operation.method, operation.path)

    async def send(self) -> Self:
        """Send it until there is a 2xx answer, or raise the `PhygitalsError` that tells why there is none."""
        try:
            request = self._prepare()
            while True:
                if not self._enters_at_once():
                    await self._enter()
                try:
                    self._response = await self._attempt(request)
                except PhygitalsError as error:
                    self._last = error
                else:
                    return self
                finally:
                    self._admission.leave(self._lane, self._priority)
                await self._pause_before_repeating(self._last)
                request = evolve(request, delivery=Delivery())
        except BaseException as error:  # Cancellation too: noted for what it leaves open; passed on.
            self._end(error)
            raise

    def _prepare(self) -> Request:
        engine = self._engine
        self._seconds = engine.deadline if self._deadline is None else check_seconds("deadline", self._deadline)
        given, self._arguments = self._arguments, {}
        self._arguments = self._operation.check(given)
        engine.enter_loop()
        # A call that its loop left behind must not give back a place of the next loop's.
        self._admission = engine.admission
        self._lane = self._admission.lane(self._operation.name)
        return engine.wire.request(self._operation, self._arguments)

    def result(self, recognise: Recognise[T] | None = None) -> T:
        """Decode the answer, or raise the `PhygitalsError` that tells what is wrong with it."""
        try:
            result = self._engine.wire.decode(self._operation, self._arguments, self._response, recognise)
        except BaseException as error:  # Whatever a structure hook of somebody's raises ends the call, and passes.
            self._end(error)
            raise
        self.drop()
        if (taken := taking.get()) is not None:
            taken.note(self._response, self._attempts, self._engine.wire.settings.api_key)
        return result

    def drop(self) -> None:
        """End a call that was answered, and whose answer nobody takes any more."""
        if self._engine.hooks is not None:
            self._engine.hooks.notify("finished", self._call, None)

    def _end(self, error: BaseException) -> None:
        """Complete the error that ends the call, or raise the `OutcomeUnknown` that it amounts to."""
        ended_by: PhygitalsError | None = None
        if isinstance(error, PhygitalsError):
            ended_by = complete(error, self._last, self._operation, self._arguments, self._attempts)
        elif self._irreversible and self._delivery is not None and self._delivery.sent is not Sent.NEVER:
            note_unknown_outcome(error, self._operation)
        if self._engine.hooks is not None:
            self._engine.hooks.notify("finished", self._call, None if ended_by is None else type(ended_by))
        if ended_by is not None and ended_by is not error:
            raise ended_by from error

    def _enters_at_once(self) -> bool:
        """Enter if that takes no waiting, and say whether it did. The time of the call runs from the first try on."""
        engine = self._engine
        now = self._admitted_at = self._sent_at = engine.affinity.now()
        # How long a lookup of a bulk run waits for its turn is the run's time, not the call's, if the run has patience.
        patient = self._lookup is not None and self._lookup.run.patience > 0
        if self.ends == math.inf and not (patient and self._priority is Priority.BULK):
            self.ends = now + self._seconds
        if engine.closed or not self._admission.enter_at_once(self._lane, self._priority, now):
            return False
        self.ends = min(self.ends, now + self._seconds)
        return True

    async def _enter(self) -> None:
        """Wait for a place and for the moment to send."""
        self._check_open()
        now = self._sent_at = await self._wait_to_enter(self._sent_at)
        try:
            self._check_open()
        except ClientClosed:
            self._admission.leave(self._lane, self._priority)
            raise
        self.ends = min(self.ends, now + self._seconds)

    async def _wait_to_enter(self, now: float) -> float:
        admission, engine = self._admission, self._engine
        if self.ends == math.inf and self._lookup is not None:
            self._admitted_at = await self._wait_with_the_run(self._lookup.run)
            return engine.affinity.now()
        latest = self._latest
        try:
            # A pause that outlasts the deadline is not worth waiting for.
            if admission.due(self._lane, now) < latest:
                admitted = engine.deadlines.within(latest - now, admission.enter, self._lane, self._priority)
                self._admitted_at = await admitted
                now = engine.affinity.now()
                if now < latest:
                    return now
                admission.leave(self._lane, self._priority)
        except DeadlineExceeded:
            pass
        raise DeadlineExceeded.while_waiting(self._seconds, self._last) from self._last

    async def _wait_with_the_run(self, run: Run) -> float:
        """Wait for the turn of a lookup of a bulk run for as long as the run goes on."""
        with run.while_it_goes_on():
            return await self._admission.enter(self._lane, self._priority)
        raise self._last or NotAttempted("not tried: the bulk run ended before its turn")

    @property
    def _latest(self) -> float:
        """When a request may leave at the latest, in seconds of the loop's clock."""
        # What moves money or goods is not sent when there is hardly any time left to learn what came of it.
        return self.ends - self._seconds * _RESERVED if self._irreversible else self.ends

    def _check_open(self) -> None:
        if self._engine.closed:
            raise ClientClosed("the client was closed") from self._last

    async def _attempt(self, request: Request) -> Response:
        engine, lookup = self._engine, self._lookup
        self._delivery = request.delivery
        self._attempts += 1
        if self._call is not None:
            self._call.attempts = self._attempts
        if lookup is not None:
            lookup.run.counts.attempts += 1
            if self._irreversible:
                lookup.note_irreversible()
        left = self.ends - self._sent_at
        # What moves money or goods is not cut short: its outcome would be unknown for nothing.
        limit = left if self._irreversible else min(left, engine.attempt_timeout)
        response: Response | None = None
        failure: PhygitalsError | None = None
        if engine.hooks is not None:
            engine.hooks.notify("attempting", self._call)
        try:
            response = await engine.deadlines.within(limit, engine.transport.send, request)
            engine.wire.check_status(self._operation, self._arguments, response)
        except PhygitalsError as error:
            failure = error if response is not None else with_truth(error, request.delivery)
        except Exception as error:  # noqa: BLE001 - the contract of `Transport`: it must not cost a purchase its truth.
            failure = unlisted(error, request.delivery)
        finally:
            self._judge(response, failure)
            if engine.hooks is not None or logger.isEnabledFor(logging.DEBUG):
                self._report(request, response, failure)
        if response is None or failure is not None:
            raise cast("PhygitalsError", failure)
        return response

    def _judge(self, response: Response | None, failure: PhygitalsError | None) -> None:
        """Take what came of an attempt into account, before its place goes to the next."""
        now = self._engine.affinity.now()
        if failure is not None:
            verdict = self._verdict = judge(failure, self._operation.effect)
            if verdict.slows:
                self._slow_down(now, failure)
                return
        if response is not None:
            self._lane.answered = True
            self._lane.pacer.accepted(now, self._admitted_at)
            # A 5xx does not show that the server is up.
            if failure is None or not self._verdict.may_pass:
                self._engine.budget.give_back()

    def _slow_down(self, now: float, failure: PhygitalsError) -> None:
        asked = asked_pause(failure)
        bounded = None if asked is None else min(asked, self._engine.retry.longest)
        # The limit of calls that move money or goods is never taken for the reads'.
        shared = self._verdict.is_limit and not self._irreversible
        news = self._admission.throttled(self._lane, now, self._admitted_at, bounded, is_shared=shared)
        if news and self._lookup is not None:
            self._lookup.run.counts.throttled += 1

    def _report(self, request: Request, response: Response | None, failure: PhygitalsError | None) -> None:
        attempt = Attempt(
            status=None if response is None else response.status,
            error=None if failure is None else type(failure),
            request_bytes=len(request.body or b""),
            response_bytes=0 if response is None else len(response.body),
            seconds=self._engine.affinity.now() - self._sent_at,
        )
        outcome = attempt.status or ("cancelled" if failure is None else type(failure).__name__)
        logger.debug("%s: attempt %d: %s in %.3f s", self._operation.name, self._attempts, outcome, attempt.seconds)
        if self._engine.hooks is not None:
            self._engine.hooks.notify("attempted", self._call, attempt)

    async def _pause_before_repeating(self, error: PhygitalsError) -> None:
        """Pause, or raise the error if it is the last word."""
        engine, verdict = self._engine, self._verdict
        now = engine.affinity.now()
        if verdict.is_limit:
            self._wait_as_long_as_the_run(now)
        else:
            self._failures += 1
        pause = engine.retry.pause(self._failures, verdict, asked_pause(error))
        # The pace alone bounds the repeats after a 429; the others have a budget.
        if pause is None or now + pause >= self._latest or not (verdict.is_limit or engine.budget.take()):
            raise error
        told = (self._operation.name, self._attempts, type(error).__name__, pause)
        logger.log(logging.INFO if verdict.is_limit else logging.WARNING, "%s: attempt %d: %s; again in %.2f s", *told)
        if engine.hooks is not None:
            engine.hooks.notify("retrying", self._call, pause)
        await self._admission.rest(pause)
        if engine.affinity.now() >= self._latest:
            raise error

    def _wait_as_long_as_the_run(self, now: float) -> None:
        """Let the time of a lookup of a bulk run begin with its next turn, within the run's patience."""
        if self._lookup is not None and self._priority is Priority.BULK:
            self._limited_at = now if self._limited_at is None else self._limited_at
            if now - self._limited_at < self._lookup.run.patience:
                self.ends = math.inf
